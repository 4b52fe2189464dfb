//! Where one vCPU is, and how it is fetched from there.

use crate::sync::SpinMutex;

/// Where a vCPU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Off, by PSCI: in its [`Whereabouts`].
    Off,
    /// Waiting for an interrupt: in its [`Whereabouts`].
    Waiting,
    /// Ready, in a queue.
    Ready,
    /// With the pCPU of this number.
    Running(usize),
    /// Given up, with its VM.
    Gone,
}

/// What [`Whereabouts::wake`] asks for.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a vCPU that nobody takes is lost"]
pub enum Wake<T> {
    /// It was waiting; here it is, to be put into a queue.
    Ready(T),
    /// It runs on this pCPU, which must be told.
    Kick(usize),
    /// Nothing: it is off, or gone, or will look by itself before it runs.
    Nothing,
}

/// Where a vCPU is, shared by all who may want it.
pub struct Whereabouts<T>(SpinMutex<State<T>>);

struct State<T> {
    place: Place,
    /// The vCPU, while it is [`Place::Off`] or [`Place::Waiting`].
    vcpu: Option<T>,
}

impl<T> Whereabouts<T> {
    /// A vCPU that is off.
    #[must_use]
    pub fn off(vcpu: T) -> Self {
        Self(SpinMutex::new(State {
            place: Place::Off,
            vcpu: Some(vcpu),
        }))
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.0.lock().place
    }

    /// Whether it does not run again unless somebody wakes it: it is off, or waits and `has_moment` knows of none at which it
    /// is woken.
    pub fn sleeps(&self, has_moment: impl FnOnce(&T) -> bool) -> bool {
        let state = self.0.lock();
        match state.place {
            Place::Off => true,
            Place::Waiting => state.vcpu.as_ref().is_some_and(|vcpu| !has_moment(vcpu)),
            Place::Ready | Place::Running(_) | Place::Gone => false,
        }
    }

    /// Notes that pCPU `cpu` has taken it from a queue.
    pub fn note_running(&self, cpu: usize) {
        self.0.lock().place = Place::Running(cpu);
    }

    /// Notes that it is in a queue again; before it is put there.
    pub fn note_ready(&self) {
        self.0.lock().place = Place::Ready;
    }

    /// Notes that it is given up.
    pub fn note_gone(&self) {
        self.0.lock().place = Place::Gone;
    }

    /// Turns an off vCPU on: `prepare` sets it up, and it is answered to be put into a queue. `None` if it is not off.
    pub fn turn_on(&self, prepare: impl FnOnce(&mut T)) -> Option<T> {
        let mut state = self.0.lock();
        if state.place != Place::Off {
            return None;
        }
        let mut vcpu = state.vcpu.take()?;
        prepare(&mut vcpu);
        state.place = Place::Ready;
        Some(vcpu)
    }

    /// Turns the running vCPU off.
    pub fn turn_off(&self, vcpu: T) {
        let mut state = self.0.lock();
        (state.place, state.vcpu) = (Place::Off, Some(vcpu));
    }

    /// Lets the running vCPU wait, unless there is something for it to do: `has_work` looks after it was put here. If there is,
    /// and nobody else has taken it meanwhile, it is answered, to be put into a queue.
    ///
    /// What those who wake it change under a lock, the caller looks at first, under that lock, and holds it during this.
    pub fn wait(&self, vcpu: T, has_work: impl FnOnce() -> bool) -> Option<T> {
        {
            let mut state = self.0.lock();
            (state.place, state.vcpu) = (Place::Waiting, Some(vcpu));
        }
        if !has_work() {
            return None;
        }
        let mut state = self.0.lock();
        let vcpu = state.vcpu.take()?;
        state.place = Place::Ready;
        Some(vcpu)
    }

    /// There is something for it to do. Called after whatever that is can be seen by a vCPU that looks.
    pub fn wake(&self) -> Wake<T> {
        let mut state = self.0.lock();
        match state.place {
            Place::Waiting => match state.vcpu.take() {
                Some(vcpu) => {
                    state.place = Place::Ready;
                    Wake::Ready(vcpu)
                }
                None => Wake::Nothing,
            },
            Place::Running(cpu) => Wake::Kick(cpu),
            Place::Off | Place::Ready | Place::Gone => Wake::Nothing,
        }
    }

    /// Its VM ends: answers the vCPU if it is here. One that runs or is in a queue is given up by who has it.
    pub fn give_up(&self) -> Option<T> {
        let mut state = self.0.lock();
        let vcpu = state.vcpu.take()?;
        state.place = Place::Gone;
        Some(vcpu)
    }
}
