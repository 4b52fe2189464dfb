//! The devices as all vCPUs share them: who changes something takes their lock, and kicks those whom it concerns when it is
//! free again.

use core::sync::atomic::{Ordering, fence};
use spin::mutex::SpinMutexGuard;

use super::devices::{Devices, Outcome};
use crate::fault::Mmio;
use crate::sync::Relax;
use crate::vgic::MAX_VCPUS;
use crate::vm::{Host, Vcpu, Vm};

type Guard<'a> = SpinMutexGuard<'a, Devices, Relax>;

impl Vm {
    /// Has `act` work on the devices, where what it changes concerns no vCPU but those that do this.
    pub fn with_devices<T>(&self, act: impl FnOnce(&mut Devices) -> T) -> T {
        let mut devices = self.devices.lock();
        let result = act(&mut devices);
        self.to_plan
            .store(devices.vcpus_to_plan(), Ordering::Relaxed);
        result
    }

    /// Its devices, locked. Who changes them takes [`Vm::on_devices`] or [`Vm::with_devices`].
    pub fn devices(&self) -> Guard<'_> {
        self.devices.lock()
    }

    /// Has `act` work on the devices for vCPU `own`, and kicks the others whom the change concerns.
    pub fn on_devices<H: Host, T>(
        &self,
        own: usize,
        host: &mut H,
        act: impl FnOnce(&mut Devices, &mut H) -> T,
    ) -> T {
        let mut devices = self.devices.lock();
        let result = act(&mut devices, host);
        self.conclude(devices, own, host);
        result
    }

    /// Publishes what an operation on the devices changed, frees them, and kicks whom it concerns.
    #[inline]
    fn conclude<H: Host>(&self, mut devices: Guard<'_>, own: usize, host: &mut H) {
        let kicks = self.publish(&mut devices, own);
        drop(devices);
        if kicks != 0 {
            // `to_plan` before the look at who runs: [`Vm::needs_plan`] has them the other way round.
            fence(Ordering::SeqCst);
            host.kick(kicks);
        }
    }

    /// Whom to kick, a bit each.
    #[inline]
    fn publish(&self, devices: &mut Devices, own: usize) -> u64 {
        let folded = devices.take_folded();
        if folded != 0 {
            self.recalls.note_folded(folded);
        }
        self.to_plan
            .store(devices.vcpus_to_plan(), Ordering::Relaxed);
        devices.take_kicks(own)
    }

    /// The same, and waits until `others`, a bit each, have been out of their guests and folded in. `own` is.
    #[cold]
    fn recall<H: Host>(&self, mut devices: Guard<'_>, own: usize, others: u64, host: &mut H) {
        let kicks = self.publish(&mut devices, own);
        let recall = self.recalls.ask(others);
        drop(devices);
        fence(Ordering::SeqCst);
        if kicks & !others != 0 {
            host.kick(kicks & !others);
        }
        self.recalls.wait(own, &recall, |vcpus| host.kick(vcpus));
    }

    /// vCPU `index` was kicked and is out of its guest: if another asked for what it did there, that is folded in.
    pub fn attend<H: Host>(&self, index: usize, host: &mut H) {
        if self.recalls.is_asked(index) {
            self.on_devices(index, host, |devices, host| devices.fold_in(index, host));
        }
    }

    /// Whether vCPU `index` must have its list registers planned before it enters its guest. Without a lock: to be asked
    /// after others can see that it runs. Who changes something later than this answer sees that, and kicks it.
    #[must_use]
    #[inline]
    pub fn needs_plan(&self, index: usize) -> bool {
        fence(Ordering::SeqCst);
        self.to_plan.load(Ordering::Relaxed) & 1 << (index % MAX_VCPUS) != 0
    }

    /// Carries out a device access.
    pub(super) fn access<H: Host>(&self, vcpu: &mut Vcpu, mmio: &Mmio, host: &mut H) {
        self.with_recalls(vcpu.index, host, |devices, has_recalled, host| {
            devices.access(vcpu, mmio, has_recalled, host)
        });
    }

    /// Has `act` do something for vCPU `own`, first of all or when those whom it depends on were recalled, and waits for
    /// those who must have left their guests before it is complete.
    pub(super) fn with_recalls<H: Host>(
        &self,
        own: usize,
        host: &mut H,
        mut act: impl FnMut(&mut Devices, bool, &mut H) -> Outcome,
    ) {
        for has_recalled in [false, true] {
            let mut devices = self.devices.lock();
            let outcome = act(&mut devices, has_recalled, host);
            match outcome {
                Outcome::Done(0) => return self.conclude(devices, own, host),
                Outcome::Done(others) => return self.recall(devices, own, others, host),
                Outcome::Recall(others) => self.recall(devices, own, others, host),
            }
        }
    }
}
