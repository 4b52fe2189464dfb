//! Calls to what is beneath us: PSCI, and Faultline's own (docs/guest-abi.md).
//!
//! Source: SMC Calling Convention (DEN 0028); PSCI (DEN 0022).
use core::arch::asm;

/// SMCCC's and PSCI's NOT_SUPPORTED.
pub const NOT_SUPPORTED: u64 = u64::MAX;

/// PSCI_VERSION.
pub const PSCI_VERSION: u32 = 0x8400_0000;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// PSCI_FEATURES.
pub const PSCI_FEATURES: u32 = 0x8400_000a;
/// Call UID of the vendor-specific hypervisor service.
pub const CALL_UID: u32 = 0x8600_ff01;

const EXIT: u32 = 0xc600_0000;
const COUNTER: u32 = 0xc600_0001;

/// Faultline's UID, d9c5e6a4-5a8f-4f0e-9a57-0f4c1e2b7a10, as the four words CALL_UID answers.
pub const UID: [u32; 4] = [0xa4e6_c5d9, 0x0e4f_8f5a, 0x4c0f_579a, 0x107a_2b1e];

/// The instruction a call is made with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Conduit {
    /// HVC #0.
    Hvc,
    /// SMC #0.
    Smc,
}

/// Makes the call; answers x0 to x3.
pub fn call(conduit: Conduit, function: u32, arguments: [u64; 3]) -> [u64; 4] {
    let [mut x1, mut x2, mut x3] = arguments;
    let mut x0 = u64::from(function);
    macro_rules! with {
        ($instruction:literal) => {
            // SAFETY: SMCCC: the callee keeps x18 to x30 and SP and changes no memory of ours.
            unsafe {
                asm!($instruction, inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
                    out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _,
                    out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
                    options(nostack));
            }
        };
    }
    match conduit {
        Conduit::Hvc => with!("hvc #0"),
        Conduit::Smc => with!("smc #0"),
    }
    [x0, x1, x2, x3]
}

/// A call by HVC that takes and answers one value.
pub fn hvc(function: u32, argument: u64) -> u64 {
    call(Conduit::Hvc, function, [argument, 0, 0])[0]
}

/// Ends the VM with this code; 0 is content. Without Faultline beneath it powers off.
pub fn exit(code: u64) -> ! {
    hvc(EXIT, code);
    power_off()
}

/// Powers off by PSCI.
pub fn power_off() -> ! {
    hvc(SYSTEM_OFF, 0);
    hang()
}

/// Resets by PSCI.
pub fn reset() -> ! {
    hvc(SYSTEM_RESET, 0);
    hang()
}

/// A call that must not return did. The harness's time limit tells.
fn hang() -> ! {
    loop {
        // SAFETY: waiting touches nothing.
        unsafe { asm!("wfe", options(nomem, nostack)) };
    }
}

/// How many counters there are.
pub const COUNTERS: usize = 17;

/// A counter the hypervisor keeps for this VM.
#[allow(missing_docs, reason = "the names are those of docs/guest-abi.md")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    TranslationRead,
    TranslationWrite,
    TranslationFetch,
    PermissionRead,
    PermissionWrite,
    PermissionFetch,
    Sufficient,
    Stage1Walk,
    PagesMapped,
    WriteRelaxed,
    ExecRelaxed,
    IcacheCoherent,
    CleanedToPoc,
    TlbInvalidations,
    AbortsInjected,
    MmioEmulated,
    Exits,
}

/// All counters at one moment, or the difference of two moments.
#[derive(Clone, Copy)]
pub struct Counters([u64; COUNTERS]);

impl Counters {
    /// Its value.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// What has been counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.0;
        for (value, before) in difference.iter_mut().zip(earlier.0) {
            *value = value.wrapping_sub(before);
        }
        Self(difference)
    }

    /// Stage-2 faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.0[..=Counter::PermissionFetch as usize].iter().sum()
    }
}

/// One counter by number; `None` when there is no such counter, or no Faultline.
pub fn counter(id: u64) -> Option<u64> {
    let [status, value, ..] = call(Conduit::Hvc, COUNTER, [id, 0, 0]);
    (status == 0).then_some(value)
}

/// All counters; `None` when there is no Faultline beneath.
pub fn counters() -> Option<Counters> {
    let mut values = [0; COUNTERS];
    for (id, value) in values.iter_mut().enumerate() {
        *value = counter(id as u64)?;
    }
    Some(Counters(values))
}

/// Whether every translation fault so far brought one page, so that what is fresh to a guest is fresh to the hypervisor.
pub fn page_by_page() -> bool {
    counters().is_some_and(|all| {
        let faults = [
            Counter::TranslationRead,
            Counter::TranslationWrite,
            Counter::TranslationFetch,
        ];
        let faults: u64 = faults.iter().map(|counter| all.get(*counter)).sum();
        faults == all.get(Counter::PagesMapped)
    })
}

/// Does `action` and says what the hypervisor counted meanwhile (besides its reading of counters: HVC exits).
pub fn counted<T>(action: impl FnOnce() -> T) -> (T, Option<Counters>) {
    let before = counters();
    let result = action();
    let after = counters();
    (
        result,
        before
            .zip(after)
            .map(|(before, after)| after.since(&before)),
    )
}
