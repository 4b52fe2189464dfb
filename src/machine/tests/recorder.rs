//! A machine for tests that is stricter than any hardware.
//!
//! It keeps an ordered log of what was done to it, panics where a rule of the architecture is broken, and where the
//! architecture leaves hardware a choice it takes the one that hurts: TLBs hold all they may until the right TLBI and DSB,
//! stores are unseen by walkers until a DSB, I-caches are stale until maintained, `HPFAR_EL2` is a lie wherever it is
//! UNKNOWN. Every constant here is from the Arm ARM and none from the code under test.

mod frame;
mod operations;
mod rules;
mod tlb;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use crate::addr::{Gva, Ipa, PAGE_SIZE, Pa, PaRange};
use crate::exit::{Abort, Exit, Need, Syndrome, Vector};
use crate::features::Coherence;
use crate::machine::{AtAborted, Dc, Dsb, El1, Ic, Machine, Tlbi};
use crate::page_pool::PagePool;
use crate::stage2::Stage2;
use frame::Frames;
use rules::{Tree, Writer};
use tlb::Tlbs;

/// Where the pool's RAM of every test lies.
pub(crate) const RAM: Pa = Pa::new(0x8_4000_0000);
/// What an UNKNOWN `HPFAR_EL2` reads as: IPA 0x6666_6000, which no test maps.
const HPFAR_POISON: u64 = 0x0066_6660;
/// A leaf's access flag.
const AF: u64 = 1 << 10;
/// Guest virtual addresses are the IPA with these bits set, so that nobody takes one for the other.
pub(crate) const VA_BASE: u64 = 0xffff_0000_0000_0000;

/// One operation, in the order in which it was done. Loads and reads leave no trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Publish { old: u64, new: u64 },
    PublishFailed,
    Zero(Pa),
    Write(Pa, u64),
    Copy(PaRange, Pa),
    Dsb(Dsb),
    Isb,
    Tlbi(Tlbi),
    Dc(Dc, PaRange),
    Ic(Ic),
    SetVttbr(u64),
    At(Gva),
    SetPar(u64),
    SetEl1(El1, u64),
}

/// What one CPU has outstanding, and its registers.
#[derive(Default)]
struct Cpu {
    /// TLBIs and VTTBR writes that no ISB has followed.
    wants_isb: bool,
    /// A DSB was done since the guest left, so that walks for it are over.
    walks_ended: bool,
    vttbr: u64,
    effective_vttbr: u64,
    par: u64,
    /// What `PAR_EL1` becomes after an ISB.
    par_answer: Option<u64>,
}

type At = Box<dyn FnMut(&mut Recorder, Gva) -> Result<u64, AtAborted>>;
type Interference = Box<dyn FnOnce(&mut Recorder)>;

/// The machine.
pub(crate) struct Recorder {
    pub(crate) pool: Rc<PagePool>,
    pub(crate) log: Vec<Op>,
    /// The guest's EL1 registers, by `El1 as usize`.
    pub(crate) el1: [u64; 16],
    /// What the guest's stage 1 answers to AT; identity without [`VA_BASE`] if none.
    pub(crate) at: Option<At>,
    /// Run before the n-th publish from now: another CPU.
    pub(crate) interfere: Option<(usize, Interference)>,
    /// Publishes that claim to have stored and have not: a broken machine.
    pub(crate) loses_stores: bool,
    pub(crate) host: HostState,
    taken: u64,
    coherence: Coherence,
    frames: Frames,
    writer: Writer,
    tree: Option<Tree>,
    windows: Vec<PaRange>,
    tlbs: Tlbs,
    cpus: [Cpu; 2],
    now: usize,
}

/// What a VM's host was asked for.
#[derive(Default)]
pub(crate) struct HostState {
    pub(crate) entropy: VecDeque<u64>,
    pub(crate) started: Vec<(usize, u64, u64)>,
    pub(crate) kicks: Vec<u64>,
    pub(crate) console: Vec<u8>,
    pub(crate) listens: u32,
    pub(crate) counter: u64,
    pub(crate) alarm: Option<u64>,
    pub(crate) warnings: Vec<String>,
    pub(crate) deactivated: Vec<u32>,
    pub(crate) vmcr: u32,
    pub(crate) lines: u32,
    pub(crate) list: Vec<crate::vgic::ListRegister>,
    /// Writes of list registers and of their control.
    pub(crate) list_writes: usize,
    pub(crate) ended_outside: VecDeque<u32>,
}

impl Recorder {
    /// A machine with `pages` of free RAM, and CPUs with these cache rules.
    pub(crate) fn new(pages: u64, coherence: Coherence) -> Self {
        let pool = PagePool::new();
        pool.add(PaRange::new(RAM, pages * PAGE_SIZE).unwrap());
        Self {
            frames: Frames::new(PaRange::new(RAM, pages * PAGE_SIZE).unwrap(), coherence),
            pool: Rc::new(pool),
            log: Vec::new(),
            el1: [0; 16],
            at: None,
            interfere: None,
            loses_stores: false,
            host: HostState::default(),
            taken: 0,
            coherence,
            writer: Writer::default(),
            tree: None,
            windows: Vec::new(),
            tlbs: Tlbs::default(),
            cpus: [
                Cpu {
                    par: 0x0123_4567_89ab_c802,
                    ..Cpu::default()
                },
                Cpu {
                    par: 0x0fed_cba9_8765_4802,
                    ..Cpu::default()
                },
            ],
            now: 0,
        }
    }

    /// Memory that a boot loader filled: readable, never written.
    pub(crate) fn add_module(&mut self, at: Pa, bytes: Vec<u8>) {
        self.frames.add_module(at, bytes);
    }

    /// A hardware window.
    pub(crate) fn add_window(&mut self, range: PaRange) {
        self.windows.push(range);
    }

    /// From now on this tree is checked, and the CPUs run its VM.
    pub(crate) fn watch(&mut self, stage2: &Stage2) {
        self.tree = Some(Tree::new(stage2.root(), stage2.config(), stage2.vttbr()));
        for cpu in &mut self.cpus {
            (cpu.vttbr, cpu.effective_vttbr) = (stage2.vttbr(), stage2.vttbr());
        }
    }

    /// Runs a verb of the host's that takes rights or access flags away in place.
    pub(crate) fn taking<R>(&mut self, verb: impl FnOnce(&mut Self) -> R) -> R {
        let set = |m: &mut Self, is_taking| {
            m.tree.as_mut().expect("a tree is watched").is_taking = is_taking;
        };
        set(self, true);
        let answer = verb(self);
        set(self, false);
        answer
    }

    /// No CPU runs the VM any more.
    pub(crate) fn park(&mut self) {
        for cpu in &mut self.cpus {
            (cpu.vttbr, cpu.effective_vttbr) = (0, 0);
            cpu.walks_ended = false;
        }
    }

    /// Does `body` as the other CPU.
    pub(crate) fn as_other_cpu<R>(&mut self, body: impl FnOnce(&mut Self) -> R) -> R {
        self.now ^= 1;
        let answer = body(self);
        self.now ^= 1;
        answer
    }

    /// The log since `from`, barriers and maintenance only.
    pub(crate) fn maintenance_since(&self, from: usize) -> Vec<Op> {
        let is_maintenance = |op: &&Op| {
            matches!(
                op,
                Op::Dsb(_) | Op::Isb | Op::Tlbi(_) | Op::Dc(..) | Op::Ic(_)
            )
        };
        self.log[from..]
            .iter()
            .filter(is_maintenance)
            .copied()
            .collect()
    }

    /// A store to the leaf at `ipa` by hardware or by another CPU, which no rule here looks at.
    pub(crate) fn other_cpu_stores(&mut self, ipa: u64, old: u64, new: u64) {
        let tree = self.tree.as_ref().expect("a tree is watched");
        let (table, index) = tree.locate(ipa);
        assert_eq!(self.frames.get(table).load(index), old);
        self.frames.get_mut(table).store(index, new);
    }

    /// What an independent walk of the tree finds at `ipa`: output address and R, W, X.
    pub(crate) fn translate(&mut self, ipa: u64) -> Option<(Pa, [bool; 3])> {
        let leaf = self.tree.as_ref()?.walk(&self.frames, ipa)?.leaf;
        Some((Pa::new(rules::output_address(leaf)), rules::rights(leaf)))
    }

    /// The leaf descriptor at `ipa`, raw; a block's as that of a page.
    pub(crate) fn leaf(&self, ipa: u64) -> Option<u64> {
        Some(self.tree.as_ref()?.walk(&self.frames, ipa)?.leaf)
    }

    /// Every mapped IPA page.
    pub(crate) fn mapped(&self) -> BTreeMap<u64, u64> {
        self.tree.as_ref().map_or_else(BTreeMap::new, |tree| {
            let all = tree.all(&self.frames).into_iter();
            all.map(|(ipa, cached)| (ipa, cached.leaf)).collect()
        })
    }

    /// The bytes of a page, as a guest with its caches on sees them.
    pub(crate) fn page(&self, pa: Pa) -> &[u8] {
        &self.frames.get(pa).bytes
    }

    /// Puts bytes into guest memory that is mapped, as the guest itself would.
    pub(crate) fn guest_writes(&mut self, ipa: u64, bytes: &[u8]) {
        let (pa, _) = self.translate(ipa).expect("a guest writes what is mapped");
        assert!(!self.frames.is_lent(pa), "nobody writes what is lent");
        let at = (ipa % PAGE_SIZE) as usize;
        self.frames.get_mut(pa).bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The ERET: checks that nothing is outstanding, then lets the CPU load all it may into its TLB.
    pub(crate) fn enter_guest(&mut self) {
        let now = self.now;
        self.writer.check_entry(now);
        self.tlbs.check_entry(now);
        self.frames.check_entry();
        let cpu = &mut self.cpus[now];
        assert!(!cpu.wants_isb, "an ISB ends every TLBI sequence");
        assert_eq!(cpu.vttbr, cpu.effective_vttbr, "an ISB follows VTTBR_EL2");
        assert_eq!(
            cpu.par,
            [0x0123_4567_89ab_c802, 0x0fed_cba9_8765_4802][now],
            "PAR_EL1 is the guest's"
        );
        cpu.walks_ended = false;
        let Some(tree) = &self.tree else { return };
        assert_eq!(cpu.vttbr, tree.vttbr, "the VM runs on its own stage 2");
        for (ipa, cached) in tree.all(&self.frames) {
            self.tlbs.fill(now, ipa, cached);
        }
    }

    /// The guest's access: through what the TLB has, else through the tree; the abort it takes.
    pub(crate) fn access(&mut self, ipa: u64, need: Need) -> Result<(), Abort> {
        let page = ipa & !(PAGE_SIZE - 1);
        let kept = self.tlbs.lookup(self.now, page);
        let walked = || self.tree.as_ref()?.walk(&self.frames, page);
        let Some(found) = kept.or_else(walked) else {
            return Err(abort(ipa, need, 0x07));
        };
        if found.leaf & AF == 0 {
            return Err(abort(ipa, need, 0x0b));
        }
        self.tlbs.fill(self.now, page, found);
        if rules::rights(found.leaf)[need as usize] {
            Ok(())
        } else {
            Err(abort(ipa, need, 0x0f))
        }
    }

    /// Pages came back to the pool since the last look: no TLB may hold one of them.
    fn check_freed(&mut self) {
        let taken = self.pool.account().taken;
        if taken >= core::mem::replace(&mut self.taken, taken) {
            return;
        }
        let held = self.tlbs.all_leaves();
        for leaf in held {
            let oa = Pa::new(rules::output_address(leaf));
            assert!(
                !self.frames.is_ram(oa) || self.pool.is_taken(oa),
                "{oa} was freed while a TLB held it"
            );
        }
    }

    fn owned(&self, at: Pa) {
        assert!(self.pool.is_taken(at), "nobody owns the page at {at}");
    }
}

/// A plain stage-2 abort as the hardware reports it, ISV = 0, with `HPFAR_EL2` only where it is defined.
pub(crate) fn abort(ipa: u64, need: Need, status: u64) -> Abort {
    let class: u64 = if need == Need::Execute { 0x20 } else { 0x24 };
    let wnr = u64::from(need == Need::Write) << 6;
    abort_with(class, status | wnr, VA_BASE | ipa, ipa)
}

/// An abort with this ISS, FAR and IPA; the IPA shows in `HPFAR_EL2` where the architecture has it there.
pub(crate) fn abort_with(class: u64, iss: u64, far: u64, ipa: u64) -> Abort {
    let is_defined = match iss & 0x3f {
        0x00..=0x0b | 0x29..=0x2c => true,
        0x0c..=0x0f => iss >> 7 & 1 == 1,
        _ => false,
    };
    let syndrome = Syndrome {
        esr: class << 26 | 1 << 25 | iss,
        far,
        hpfar: if is_defined {
            ipa >> 12 << 4
        } else {
            HPFAR_POISON
        },
    };
    match Exit::decode(Vector::Synchronous, &syndrome) {
        Exit::Abort(abort) => abort,
        other => panic!("not an abort: {other:?}"),
    }
}

impl Recorder {
    /// Stores a word where a guest reads it.
    pub(crate) fn tell(&mut self, at: Pa, value: u64) {
        self.frames.tell(at, value);
    }
}

/// An IPA page that a rule speaks of.
pub(crate) const fn page_of(ipa: Ipa) -> u64 {
    ipa.raw() & !(PAGE_SIZE - 1)
}
