//! A copy of the tree, in which one line at a time is another.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a build of the library's tests needs.
const PARTS: [&str; 6] = ["Cargo.toml", "Cargo.lock", ".cargo", "src", "guest", "docs"];

/// What cargo makes in a folder.
pub(crate) const BUILT: &str = "target";

/// The copy.
pub(crate) struct Copy {
    from: PathBuf,
    /// Where it lies.
    pub(crate) root: PathBuf,
}

impl Copy {
    /// Brings the copy of the tree at `from` up to date. What has not changed is left alone, so that little is built.
    pub(crate) fn of(from: &Path) -> Self {
        let root = from.join("target/mutants");
        fs::create_dir_all(&root).unwrap_or_else(|why| panic!("{}: {why}", root.display()));
        for part in PARTS {
            let (from, to) = (from.join(part), root.join(part));
            bring(&from, &to).unwrap_or_else(|why| panic!("{}: {why}", to.display()));
        }
        Self {
            from: from.into(),
            root,
        }
    }

    /// Puts `new` in the place of the one line `old`, whatever its indentation.
    pub(crate) fn change(&self, file: &str, old: &str, new: &str) -> Result<(), String> {
        let text =
            fs::read_to_string(self.from.join(file)).map_err(|why| format!("{file}: {why}"))?;
        let lines = text
            .lines()
            .map(|line| if line.trim() == old { new } else { line });
        let changed: Vec<&str> = lines.collect();
        fs::write(self.root.join(file), changed.join("\n") + "\n")
            .map_err(|why| format!("{file}: {why}"))
    }

    /// Puts the line back.
    pub(crate) fn restore(&self, file: &str) -> Result<(), String> {
        let (from, to) = (self.from.join(file), self.root.join(file));
        bring(&from, &to).map_err(|why| format!("{file}: {why}"))
    }
}

/// Makes `to` what `from` is.
fn bring(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        let names = |folder: &Path| -> io::Result<Vec<OsString>> {
            fs::read_dir(folder)?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect()
        };
        let wanted = names(from)?;
        let is_gone = |name: &OsString| !wanted.contains(name) && name != BUILT;
        for gone in names(to)?.into_iter().filter(is_gone) {
            let gone = to.join(gone);
            if gone.is_dir() {
                fs::remove_dir_all(gone)?;
            } else {
                fs::remove_file(gone)?;
            }
        }
        return wanted
            .iter()
            .try_for_each(|name| bring(&from.join(name), &to.join(name)));
    }
    let bytes = fs::read(from)?;
    if fs::read(to).is_ok_and(|known| known == bytes) {
        return Ok(());
    }
    fs::write(to, bytes)
}
