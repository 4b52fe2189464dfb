//! A process whose console is read as it speaks, and typed to.
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What to type once a text has been seen (after the one before it); an empty text: at once.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) after: &'static str,
    pub(crate) send: String,
}

/// How a process ended.
pub(crate) enum End {
    /// By itself, with this code (none when a signal ended it).
    Code(Option<i32>),
    /// Everything waited for was seen, and we ended it.
    Seen,
    /// It was still running at the limit, and we ended it.
    Limit,
}

/// Runs `command`, types `keys`, and waits until it ends, `enough` says that nothing more is needed, or `limit` passes.
pub(crate) fn watch(
    mut command: Command,
    keys: &[Keys],
    limit: Duration,
    enough: impl Fn(&str) -> bool,
) -> std::io::Result<(End, String)> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let readers = [
        listen(child.stdout.take(), &heard),
        listen(child.stderr.take(), &heard),
    ];
    let mut typist = Typist {
        stdin: child.stdin.take(),
        keys: keys.iter().cloned().collect(),
        from: 0,
    };
    let deadline = Instant::now() + limit;
    let end = loop {
        let text = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        typist.type_what_is_due(&text);
        if let Some(status) = child.try_wait()? {
            break End::Code(status.code());
        }
        if enough(&text) {
            stop(&mut child);
            break End::Seen;
        }
        if Instant::now() > deadline {
            stop(&mut child);
            break End::Limit;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(typist);
    for reader in readers {
        // A reader ends with its pipe; it cannot panic.
        let _ = reader.join();
    }
    let text = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    Ok((end, text))
}

/// Ends a process by its id: asked first, so that it can end what it started.
fn stop(child: &mut Child) {
    let pid = child.id().to_string();
    let _ = Command::new("kill").arg(&pid).status();
    for _ in 0..100 {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn listen(pipe: Option<impl Read + Send + 'static>, heard: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            heard.lock().unwrap().extend_from_slice(&bytes[..count]);
        }
    })
}

struct Typist {
    stdin: Option<ChildStdin>,
    keys: std::collections::VecDeque<Keys>,
    /// Where in the console's text the next one is looked for.
    from: usize,
}

impl Typist {
    fn type_what_is_due(&mut self, text: &str) {
        while let Some(next) = self.keys.front() {
            let Some(at) = text.get(self.from..).and_then(|rest| rest.find(next.after)) else {
                return;
            };
            self.from += at + next.after.len();
            if let Some(stdin) = &mut self.stdin {
                // A process that has ended hears nothing; its end is reported elsewhere.
                let _ = stdin
                    .write_all(next.send.as_bytes())
                    .and_then(|()| stdin.flush());
            }
            self.keys.pop_front();
        }
        // Nothing more to type: the end of a pipe, as in `printf … | make run`.
        self.stdin = None;
    }
}
