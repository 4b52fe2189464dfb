//! Machine operations that a deliberate bug drops or weakens: switches, so that no mutant of this kind needs a build.

use std::string::String;

/// A deliberate bug: its name, and what becomes of the operation it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Weak {
    Sound,
    NoTlbiAfterRelax,
    TlbiIpaOnly,
    NoDsbBetween,
    LocalWhereBroadcast,
    WrongVmid,
    NoDsbBeforeTlbi,
    NoDsbAfterTlbi,
    NonShareableDsb,
    NoIsbAfterVttbr,
    WrongTtl,
    ShortRange,
    NoCleanToPoc,
    CleanAfterPublish,
    NoCleanToPou,
    NoIcache,
    LinesOnVipt,
    NoDsbAfterClean,
    FirstLineOnly,
    NoRepeat,
    NoZero,
    StoreForCas,
    ParNotKept,
}

/// Every switch by its name.
pub(super) const WEAKNESSES: [(&str, Weak); 22] = [
    ("no-tlbi-after-relax", Weak::NoTlbiAfterRelax),
    ("tlbi-ipa-only", Weak::TlbiIpaOnly),
    ("no-dsb-between", Weak::NoDsbBetween),
    ("local-where-broadcast", Weak::LocalWhereBroadcast),
    ("wrong-vmid", Weak::WrongVmid),
    ("no-dsb-before-tlbi", Weak::NoDsbBeforeTlbi),
    ("no-dsb-after-tlbi", Weak::NoDsbAfterTlbi),
    ("non-shareable-dsb", Weak::NonShareableDsb),
    ("no-isb-after-vttbr", Weak::NoIsbAfterVttbr),
    ("wrong-ttl", Weak::WrongTtl),
    ("short-range", Weak::ShortRange),
    ("no-clean-to-poc", Weak::NoCleanToPoc),
    ("clean-after-publish", Weak::CleanAfterPublish),
    ("no-clean-to-pou", Weak::NoCleanToPou),
    ("no-icache", Weak::NoIcache),
    ("lines-on-vipt", Weak::LinesOnVipt),
    ("no-dsb-after-clean", Weak::NoDsbAfterClean),
    ("first-line-only", Weak::FirstLineOnly),
    ("no-repeat", Weak::NoRepeat),
    ("no-zero", Weak::NoZero),
    ("store-for-cas", Weak::StoreForCas),
    ("par-not-kept", Weak::ParNotKept),
];

impl Weak {
    /// The switch that the environment asks for.
    pub(super) fn from_environment() -> Self {
        std::env::var("FAULTLINE_WEAK").map_or(Self::Sound, |name| Self::named(&name))
    }

    pub(super) fn named(name: &str) -> Self {
        let found = WEAKNESSES.iter().find(|(known, _)| *known == name);
        let known = || WEAKNESSES.map(|(known, _)| String::from(known)).join(" ");
        found
            .unwrap_or_else(|| panic!("no switch {name}; there are: {}", known()))
            .1
    }
}
