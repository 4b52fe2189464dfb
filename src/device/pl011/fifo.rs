//! The receive FIFO: sixteen bytes, in order.

/// Bytes the FIFO holds when it is enabled: 16 up to revision r1p4 of the PL011, which the model identifies as.
pub(super) const DEPTH: usize = 16;

/// A ring of [`DEPTH`] bytes. Nothing is ever overwritten: a byte that finds it full is refused.
#[derive(Clone, Debug)]
pub(super) struct Fifo {
    bytes: [u8; DEPTH],
    head: usize,
    len: usize,
}

impl Fifo {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; DEPTH],
            head: 0,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `byte` in; false when it is full and the byte was refused.
    pub(super) fn push(&mut self, byte: u8) -> bool {
        if self.len >= DEPTH {
            return false;
        }
        self.bytes[(self.head + self.len) % DEPTH] = byte;
        self.len += 1;
        true
    }

    /// The oldest byte.
    pub(super) fn pop(&mut self) -> Option<u8> {
        if self.len == 0 {
            return None;
        }
        let byte = self.bytes[self.head];
        self.head = (self.head + 1) % DEPTH;
        self.len -= 1;
        Some(byte)
    }
}
