//! Device trees as Faultline reads them: nodes with their ancestors, properties as checked values.
//!
//! Guarantees: total. A blob that [`Tree::parse`] accepted can be walked and asked anything; whatever does not have the
//! shape a question needs answers `None` or an error, and no walk is longer than the blob. Does not interpret any
//! binding: that is for the modules beside this one and for [`crate::config`].
//!
//! Source: Devicetree Specification 0.4, "Devicetree Basics" (cells, `reg`, `ranges`, `status`) and "Flattened
//! Devicetree (DTB) Format".

mod value;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node as _, Property as _};

pub use value::Value;

use crate::addr::{Pa, PaRange};

/// First word of every flattened tree, big-endian.
pub const MAGIC: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];

/// Bytes of the header at which a tree's size can be told.
pub const SIZE_PREFIX: usize = 8;

/// Nodes nested deeper than this are not looked at; real trees stay below ten levels.
const MAX_DEPTH: usize = 16;

/// Why a blob is no tree. One line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TreeError {
    /// The magic number is missing: something else is there.
    NotATree,
    /// The header promises more bytes than there are.
    Truncated {
        /// Bytes the header promises.
        promised: u64,
        /// Bytes there are.
        present: u64,
    },
    /// The structure is damaged.
    Broken(String),
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATree => f.write_str("not a device tree"),
            Self::Truncated { promised, present } => {
                write!(
                    f,
                    "the device tree is cut off: its header promises {promised} bytes, {present} are there"
                )
            }
            Self::Broken(why) => write!(f, "the device tree is broken: {why}"),
        }
    }
}

/// A flattened device tree whose structure has been checked from end to end.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    fdt: Fdt<'a>,
}

impl<'a> Tree<'a> {
    /// Bytes of the tree that begins with `head`, of which the first [`SIZE_PREFIX`] must be there.
    ///
    /// # Errors
    /// `NotATree` without the magic number or with less than those bytes.
    pub fn total_size(head: &[u8]) -> Result<usize, TreeError> {
        let (magic, rest) = head.split_first_chunk::<4>().ok_or(TreeError::NotATree)?;
        let size = rest.first_chunk::<4>().ok_or(TreeError::NotATree)?;
        if *magic != MAGIC {
            return Err(TreeError::NotATree);
        }
        Ok(u32::from_be_bytes(*size) as usize)
    }

    /// Checks the tree at the start of `blob`; what follows it is ignored.
    ///
    /// # Errors
    /// Every way in which the blob is not a whole, sound tree of version 17.
    pub fn parse(blob: &'a [u8]) -> Result<Self, TreeError> {
        let size = Self::total_size(blob)?;
        let blob = blob.get(..size).ok_or(TreeError::Truncated {
            promised: size as u64,
            present: blob.len() as u64,
        })?;
        let fdt = Fdt::new(blob).map_err(|error| TreeError::Broken(error.to_string()))?;
        Ok(Self { fdt })
    }

    /// The root node.
    #[must_use]
    pub fn root(&self) -> Node<'a> {
        Node {
            lineage: alloc::vec![self.fdt.root()],
        }
    }

    /// The node at `path` (`/soc/serial@7e20_1000`); a component without unit address matches the first node of that name.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Node<'a>> {
        let mut node = self.root();
        for component in path
            .strip_prefix('/')?
            .split('/')
            .filter(|component| !component.is_empty())
        {
            let child = node.own().child(component)?;
            node.lineage.push(child);
        }
        Some(node)
    }

    /// The node an alias or a path names, options after `:` ignored, as `/chosen/stdout-path` is written.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<Node<'a>> {
        let name = name.split(':').next().unwrap_or(name);
        if name.starts_with('/') {
            return self.find(name);
        }
        self.find(self.find("/aliases")?.property(name)?.string()?)
    }

    /// The node with this phandle.
    #[must_use]
    pub fn by_phandle(&self, phandle: u32) -> Option<Node<'a>> {
        self.nodes().find(|node| node.phandle() == Some(phandle))
    }

    /// Every node but the root, parents before their children.
    #[must_use]
    pub fn nodes(&self) -> Nodes<'a> {
        let root = self.fdt.root();
        Nodes {
            lineage: alloc::vec![root],
            children: alloc::vec![root.children()],
        }
    }

    /// The first enabled node that is compatible with one of `names`.
    #[must_use]
    pub fn compatible(&self, names: &[&str]) -> Option<Node<'a>> {
        self.nodes()
            .find(|node| node.is_compatible(names) && node.is_enabled())
    }

    /// The entries of the memory reservation block, address and size.
    pub fn memory_reservations(&self) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.fdt
            .memory_reservations()
            .map(|entry| (entry.address(), entry.size()))
    }

    /// Where in the blob the bytes of a property's value lie.
    ///
    /// A value of another tree has no place in this one: the empty range at its end.
    #[must_use]
    pub fn place_of(&self, value: &Value<'a>) -> Range<usize> {
        let blob = self.fdt.data();
        let offset = (value.bytes().as_ptr() as usize).checked_sub(blob.as_ptr() as usize);
        match offset.and_then(|start| Some(start..start.checked_add(value.bytes().len())?)) {
            Some(place) if place.end <= blob.len() => place,
            _ => blob.len()..blob.len(),
        }
    }
}

/// Iterator over a tree's nodes: see [`Tree::nodes`].
pub struct Nodes<'a> {
    lineage: Vec<FdtNode<'a>>,
    children: Vec<<FdtNode<'a> as dtoolkit::Node>::Children<'a>>,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        loop {
            let depth = self.children.len();
            let Some(child) = self.children.last_mut()?.next() else {
                self.children.pop();
                continue;
            };
            self.lineage.truncate(depth);
            self.lineage.push(child);
            if depth < MAX_DEPTH {
                self.children.push(child.children());
            }
            return Some(Node {
                lineage: self.lineage.clone(),
            });
        }
    }
}

/// A node together with the nodes it lies in.
#[derive(Clone)]
pub struct Node<'a> {
    /// The root first, the node itself last; never empty.
    lineage: Vec<FdtNode<'a>>,
}

impl<'a> Node<'a> {
    fn own(&self) -> FdtNode<'a> {
        *self
            .lineage
            .last()
            .expect("a lineage has at least the root")
    }

    /// Its name with the unit address; empty for the root.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.own().name()
    }

    /// Its name without the unit address.
    #[must_use]
    pub fn base_name(&self) -> &'a str {
        self.name().split('@').next().unwrap_or_default()
    }

    /// Its whole path, for messages.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::new();
        for node in self.lineage.iter().skip(1) {
            path.push('/');
            path.push_str(node.name());
        }
        if path.is_empty() {
            path.push('/');
        }
        path
    }

    /// The node it lies in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.lineage.split_last()?;
        (!above.is_empty()).then(|| Self {
            lineage: above.to_vec(),
        })
    }

    /// The nodes directly in it.
    pub fn children(&self) -> impl Iterator<Item = Node<'a>> + '_ {
        self.own().children().map(|child| {
            let mut lineage = self.lineage.clone();
            lineage.push(child);
            Node { lineage }
        })
    }

    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<Value<'a>> {
        value_of(self.own(), name)
    }

    /// The names of all its properties.
    pub fn property_names(&self) -> impl Iterator<Item = String> + use<'a> {
        self.own()
            .properties()
            .map(|property| String::from(property.name()))
    }

    /// Its phandle, if something can refer to it.
    #[must_use]
    pub fn phandle(&self) -> Option<u32> {
        self.property("phandle")
            .or_else(|| self.property("linux,phandle"))?
            .u32()
    }

    /// Whether its `compatible` lists one of `names`, at any place.
    #[must_use]
    pub fn is_compatible(&self, names: &[&str]) -> bool {
        self.property("compatible")
            .is_some_and(|list| list.strings().any(|entry| names.contains(&entry)))
    }

    /// Whether `status` says that it may be used: absent, `okay` or `ok`.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.property("status")
            .is_none_or(|status| matches!(status.string(), Some("okay" | "ok")))
    }

    /// The value of a property of the node or, failing that, of its closest ancestor.
    #[must_use]
    pub fn inherited(&self, name: &str) -> Option<Value<'a>> {
        self.lineage
            .iter()
            .rev()
            .find_map(|node| value_of(*node, name))
    }

    /// The entries of `reg` as CPU addresses: translated by the `ranges` of every bus on the way up.
    ///
    /// `None` if `reg` is absent, is no whole number of entries, or names addresses no CPU reaches. An entry of size 0
    /// is kept.
    #[must_use]
    pub fn reg(&self) -> Option<Vec<PaRange>> {
        let (_, buses) = self.lineage.split_last()?;
        let mut entries = Vec::new();
        for (address, size) in self.untranslated_reg()? {
            let address = translate(buses, address, size)?;
            entries.push(PaRange::new(Pa::new(address), size)?);
        }
        Some(entries)
    }

    /// The entries of `reg` as they stand, in its parent's address space; `None` as for [`reg`](Self::reg).
    #[must_use]
    pub fn untranslated_reg(&self) -> Option<Vec<(u64, u64)>> {
        let [.., parent, node] = self.lineage.as_slice() else {
            return None;
        };
        let widths = [address_cells(*parent)?, size_cells(*parent)?];
        let entries = value_of(*node, "reg")?.entries(widths)?;
        Some(
            entries
                .into_iter()
                .map(|[address, size]| (address, size))
                .collect(),
        )
    }
}

/// `address` on the last of `buses` as the CPU sees it; `None` if some bus maps no such range.
fn translate(buses: &[FdtNode<'_>], mut address: u64, size: u64) -> Option<u64> {
    for level in (1..buses.len()).rev() {
        let (bus, parent) = (*buses.get(level)?, *buses.get(level - 1)?);
        let ranges = value_of(bus, "ranges")?;
        if ranges.bytes().is_empty() {
            continue;
        }
        let widths = [
            address_cells(bus)?,
            address_cells(parent)?,
            size_cells(bus)?,
        ];
        address = ranges
            .entries(widths)?
            .into_iter()
            .find_map(|[child, parent, length]| {
                let offset = address.checked_sub(child)?;
                (offset.checked_add(size)? <= length).then(|| parent.checked_add(offset))?
            })?;
    }
    Some(address)
}

fn address_cells(node: FdtNode<'_>) -> Option<usize> {
    cell_count(node, "#address-cells", 2)
}

fn size_cells(node: FdtNode<'_>) -> Option<usize> {
    cell_count(node, "#size-cells", 1)
}

/// How many cells a number has, with the specification's default; more than 64 bits are not ours to read.
fn cell_count(node: FdtNode<'_>, name: &str, default: u32) -> Option<usize> {
    let count = match value_of(node, name) {
        Some(value) => value.u32()?,
        None => default,
    };
    (count <= 2).then_some(count as usize)
}

fn value_of<'a>(node: FdtNode<'a>, name: &str) -> Option<Value<'a>> {
    let property = node.properties().find(|property| property.name() == name)?;
    property.value_as::<&'a [u8]>().ok().map(Value::new)
}
