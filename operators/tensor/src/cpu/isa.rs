//! Which instructions this machine has, and how a kernel is built for each of them.
//!
//! A kernel is a function generic over [`Lanes`](super::lanes::Lanes); `kernel!` makes one copy of
//! it per instruction set and a function that picks the copy at run time. An [`Isa`] is only made
//! by asking the processor, so holding one is the proof that its instructions are there.

use std::fmt;

/// The instruction set that kernels run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isa(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The best that this machine has.
    pub(crate) fn detect() -> Isa {
        Isa::all().first().copied().unwrap_or(Isa(Set::Portable))
    }

    /// All that this machine has, the best first.
    pub(crate) fn all() -> Vec<Isa> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(has_avx512().then_some(Isa(Set::Avx512)));
            all.extend(has_avx2().then_some(Isa(Set::Avx2)));
        }
        all.push(Isa(Set::Portable));
        all
    }

    pub(super) fn set(self) -> Set {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            Set::Portable => "portable",
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// `kernel! { /// docs
/// pub(crate) fn name = generic_kernel(a: A, b: B) -> R }` makes `name(isa, a, b)`, which runs
/// `generic_kernel(lanes, a, b)` compiled for the instruction set.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident = $kernel:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::cpu::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function is only run where its features are.
                $kernel(unsafe { $crate::cpu::lanes::Avx512::new() }, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: as above.
                $kernel(unsafe { $crate::cpu::lanes::Avx2::new() }, $($arg),*)
            }
            match isa.set() {
                // SAFETY: an `Isa` is proof of its instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::isa::Set::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::isa::Set::Avx2 => unsafe { avx2($($arg),*) },
                $crate::cpu::isa::Set::Portable => $kernel($crate::cpu::lanes::Portable, $($arg),*),
            }
        }
    };
}
pub(super) use kernel;
