//! What a state machine may say, or do, for the sake of upgrades.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use raft_fsm_abi::{
    GLOBAL_F32, GLOBAL_F64, GLOBAL_I32, GLOBAL_I64, GLOBAL_V128, OLD_GLOBAL_BYTES,
    STATE_VERSION_MAX_BYTES,
};

use crate::{Context, Host, Rejection, StateMachine};

/// A state machine that can tell whether its state keeps its own rules. Export it with
/// [`export!(Machine, check)`](crate::export).
///
/// ```
/// # use raft_fsm_sdk::*;
/// # #[derive(Default)]
/// # struct Bank { sum: i64, balances: Vec<i64> }
/// # impl StateMachine for Bank {
/// #     fn apply(&mut self, _: &Context, _: &[u8]) -> Result<Answer, Rejection> { Ok("".into()) }
/// #     fn snapshot(&self, _: &Context, _: &mut Writer) {}
/// #     fn restore(_: &Context, _: &mut Reader) -> Result<Bank, Rejection> { Ok(Bank::default()) }
/// # }
/// impl Check for Bank {
///     fn check(&self, _: &Context) -> Result<(), Rejection> {
///         match self.balances.iter().sum::<i64>() == self.sum {
///             true => Ok(()),
///             false => Err("the balances do not add up".into()),
///         }
///     }
/// }
///
/// raft_fsm_sdk::export!(Bank, check);
/// ```
pub trait Check: StateMachine {
    /// Walks the state; `Err` says which rule is broken, and where. The host asks when an upgrade is tried on the
    /// real state. Whatever it changes is thrown away.
    fn check(&self, context: &Context) -> Result<(), Rejection>;
}

/// A state machine that names the format of its snapshots, so that it is never given those of a
/// stranger. Export it with [`export!(Machine, versions)`](crate::export).
///
/// ```
/// # use raft_fsm_sdk::*;
/// # #[derive(Default)]
/// # struct Bank;
/// # impl StateMachine for Bank {
/// #     fn apply(&mut self, _: &Context, _: &[u8]) -> Result<Answer, Rejection> { Ok("".into()) }
/// #     fn snapshot(&self, _: &Context, _: &mut Writer) {}
/// #     fn restore(_: &Context, _: &mut Reader) -> Result<Bank, Rejection> { Ok(Bank) }
/// # }
/// impl Versions for Bank {
///     const STATE_VERSION: &'static str = "bank/2";
///     const RESTORES: &'static [&'static str] = &["bank/1", "bank/2"];
/// }
///
/// raft_fsm_sdk::export!(Bank, versions);
/// ```
pub trait Versions: StateMachine {
    /// The name of what [`snapshot`](StateMachine::snapshot) writes, such as `kv/2`: 1 to 64 letters (a to z), digits
    /// and any of `.`, `_`, `-`, `/`.
    const STATE_VERSION: &'static str;

    /// The formats that [`restore`](StateMachine::restore) takes.
    const RESTORES: &'static [&'static str] = &[Self::STATE_VERSION];

    /// Whether [`restore`](StateMachine::restore) takes a format; `Err` says why not.
    fn restores(_context: &Context, version: &str) -> Result<(), Rejection> {
        match Self::RESTORES.contains(&version) {
            true => Ok(()),
            false => {
                Err(format!("it restores {}, and this is {version}", Self::RESTORES.join(" and "))
                    .into())
            }
        }
    }
}

/// A state machine that can take over the exact memory of another module's instance, whose `snapshot` can never
/// succeed. Export it with [`export!(Machine, adopt)`](crate::export).
pub trait Adopt: StateMachine {
    /// Builds the state from what the old instance's memory holds. Refuse every module but those whose layout you
    /// know.
    fn adopt(context: &Context, old: &OldInstance) -> Result<Self, Rejection>;
}

/// The bits of a mutable global.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Global {
    /// A number of 32 bits; addresses are such.
    I32(u32),
    /// A number of 64 bits.
    I64(u64),
    /// A float of 32 bits.
    F32(f32),
    /// A float of 64 bits.
    F64(f64),
    /// A vector.
    V128(u128),
}

impl Global {
    /// Its type and bits, as the host tells them.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn parts(self) -> (i32, u128) {
        match self {
            Global::I32(number) => (GLOBAL_I32, number.into()),
            Global::I64(number) => (GLOBAL_I64, number.into()),
            Global::F32(number) => (GLOBAL_F32, number.to_bits().into()),
            Global::F64(number) => (GLOBAL_F64, number.to_bits().into()),
            Global::V128(bits) => (GLOBAL_V128, bits),
        }
    }
}

/// The memory of the instance that [`adopt`](Adopt::adopt) takes over. All numbers are little-endian. What lies outside
/// is a [`Rejection`], so that `?` is enough.
pub struct OldInstance<'a> {
    host: &'a Host,
    module: [u8; 32],
}

impl<'a> OldInstance<'a> {
    pub(crate) fn new(host: &'a Host, module: [u8; 32]) -> OldInstance<'a> {
        OldInstance { host, module }
    }

    /// The SHA-256 of its module.
    pub fn module(&self) -> [u8; 32] {
        self.module
    }

    /// Size of its memory in bytes.
    pub fn size(&self) -> u64 {
        self.host.old_memory_size()
    }

    /// Fills `out` from an address on.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Rejection> {
        self.need(at, out.len() as u64)?;
        self.host.old_memory(at, out);
        Ok(())
    }

    /// So many bytes from an address on. A length beyond the end is refused before anything is
    /// allocated.
    pub fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>, Rejection> {
        self.need(at, len as u64)?;
        let mut bytes = vec![0; len];
        self.host.old_memory(at, &mut bytes);
        Ok(bytes)
    }

    /// One byte.
    pub fn u8(&self, at: u64) -> Result<u8, Rejection> {
        self.array(at).map(|[byte]| byte)
    }

    /// Four bytes: a pointer or a length, say.
    pub fn u32(&self, at: u64) -> Result<u32, Rejection> {
        self.array(at).map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&self, at: u64) -> Result<u64, Rejection> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// The `number`-th mutable global, from 0 on, in the order of the module's indices; `None` if there are
    /// not so many.
    pub fn global(&self, number: u32) -> Option<Global> {
        let mut bytes = [0; OLD_GLOBAL_BYTES];
        let ty = self.host.old_global(number, &mut bytes);
        let bits = u128::from_le_bytes(bytes);
        Some(match ty {
            GLOBAL_I32 => Global::I32(bits as u32),
            GLOBAL_I64 => Global::I64(bits as u64),
            GLOBAL_F32 => Global::F32(f32::from_bits(bits as u32)),
            GLOBAL_F64 => Global::F64(f64::from_bits(bits as u64)),
            GLOBAL_V128 => Global::V128(bits),
            _ => return None,
        })
    }

    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], Rejection> {
        let mut bytes = [0; N];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    fn need(&self, at: u64, len: u64) -> Result<(), Rejection> {
        match at.checked_add(len).is_some_and(|end| end <= self.size()) {
            true => Ok(()),
            false => Err(format!("the old memory ends before {len} bytes at {at:#x}").into()),
        }
    }
}

/// Whether a name is one of a format; for [`export!`](crate::export).
#[doc(hidden)]
pub const fn is_state_version(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !(bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'.' | b'_' | b'-' | b'/')) {
            return false;
        }
        at += 1;
    }
    at > 0 && at <= STATE_VERSION_MAX_BYTES
}
