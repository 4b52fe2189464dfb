//! The pool runs dry at every step of a fault.

use super::world::{RAM_START, Setup, WINDOW};
use crate::exit::Need;
use crate::fault::{Resolution, Stop};
use crate::machine::recorder::abort;

/// 48 bits: a fault needs three tables and a page. With fewer free, nothing changes and nothing is lost.
#[test]
fn a_dry_pool_stops_the_vm_and_changes_nothing() {
    for (free, ipa) in (0..4)
        .map(|free| (free, RAM_START))
        .chain((0..3).map(|free| (free, WINDOW)))
    {
        let mut world = Setup {
            highest: 1 << 47,
            pages: 16,
            ..Setup::default()
        }
        .build();
        let pool = world.shared.pool.clone();
        let mut held: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
        held.drain(..free)
            .for_each(|page| pool.give(page.into_owned()));
        let before = pool.account();
        let stores = world.m.log.len();
        let answer = world.resolve(&abort(ipa, Need::Write, 0x04));
        let expected = Stop::OutOfPages {
            total: 16,
            mapped: 0,
        };
        assert_eq!(answer, Resolution::Stop(expected), "{free} pages free");
        assert_eq!(pool.account().taken, before.taken);
        assert!(world.m.mapped().is_empty());
        let published = world.m.log[stores..]
            .iter()
            .any(|op| matches!(op, crate::machine::recorder::Op::Publish { .. }));
        assert!(!published, "nothing is linked before all is at hand");
        // Memory comes back, and so does the guest.
        held.into_iter()
            .for_each(|page| pool.give(page.into_owned()));
        assert_eq!(world.touch(RAM_START, Need::Write), 1);
        world.end();
    }
}

#[test]
fn relaxing_needs_no_page() {
    let mut world = Setup {
        pages: 6,
        ..Setup::default()
    }
    .build();
    world.touch(RAM_START, Need::Read);
    let pool = world.shared.pool.clone();
    assert!(
        pool.take().is_none(),
        "roots, a table and the page are all there is"
    );
    assert_eq!(world.touch(RAM_START, Need::Write), 1);
    assert_eq!(world.touch(RAM_START, Need::Execute), 1);
    world.end();
}

#[test]
fn the_message_says_how_much_there_was() {
    let text = format!(
        "{}",
        Stop::OutOfPages {
            total: 16,
            mapped: 4
        }
    );
    assert!(text.contains("64 KiB") && text.contains("16 KiB"), "{text}");
}
