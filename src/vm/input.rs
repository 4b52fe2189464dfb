//! What was typed and the guest has not taken yet, and the one key that is ours.
//!
//! Bytes are taken from the UART early, so that the key works although the guest does not listen; none is lost: when the
//! queue is full the rest waits in the UART.

/// Bytes the queue holds.
const DEPTH: usize = 256;

/// Ctrl-]: where is every vCPU? Typed twice, the guest gets one.
pub const HOTKEY: u8 = 0x1d;

/// What a byte comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typed {
    /// It waits for the guest.
    Queued,
    /// It was the key: tell where the vCPUs are.
    Where,
}

/// A queue of typed bytes.
#[derive(Debug)]
pub struct Input {
    bytes: [u8; DEPTH],
    first: usize,
    count: usize,
    after_hotkey: bool,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            bytes: [0; DEPTH],
            first: 0,
            count: 0,
            after_hotkey: false,
        }
    }
}

impl Input {
    /// Whether no further byte can be taken.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count == DEPTH
    }

    /// Takes a byte; there is room, see [`Self::is_full`].
    pub fn push(&mut self, byte: u8) -> Typed {
        if byte == HOTKEY && !self.after_hotkey {
            self.after_hotkey = true;
            return Typed::Where;
        }
        self.after_hotkey = false;
        if let Some(place) = self.bytes.get_mut((self.first + self.count) % DEPTH)
            && self.count < DEPTH
        {
            *place = byte;
            self.count += 1;
        }
        Typed::Queued
    }

    /// The byte that waits longest.
    pub fn pop(&mut self) -> Option<u8> {
        if self.count == 0 {
            return None;
        }
        let byte = self.bytes.get(self.first).copied();
        self.first = (self.first + 1) % DEPTH;
        self.count -= 1;
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn the_key_is_ours_and_typed_twice_it_is_the_guests() {
        let mut input = Input::default();
        assert_eq!(input.push(HOTKEY), Typed::Where);
        assert_eq!(input.pop(), None);
        assert_eq!(input.push(HOTKEY), Typed::Queued);
        assert_eq!(input.pop(), Some(HOTKEY));
        assert_eq!(input.push(HOTKEY), Typed::Where);
        assert_eq!(input.push(b'a'), Typed::Queued);
        assert_eq!(input.push(HOTKEY), Typed::Where);
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(ops in proptest::collection::vec(proptest::option::of(0u8..0x1d), 0..2000)) {
            let (mut input, mut model) = (Input::default(), VecDeque::new());
            for op in ops {
                match op {
                    Some(byte) if !input.is_full() => {
                        input.push(byte);
                        model.push_back(byte);
                    }
                    Some(_) => prop_assert_eq!(model.len(), DEPTH),
                    None => prop_assert_eq!(input.pop(), model.pop_front()),
                }
            }
        }
    }
}
