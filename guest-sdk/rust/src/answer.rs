//! What a call gives back.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Display};
use core::ops::Deref;

/// The answer to a command or a query: any bytes. Constants cost no allocation.
///
/// ```
/// # use raft_fsm_sdk::Answer;
/// let constant = Answer::from("done");
/// let computed = Answer::from(format!("{} done", 3));
/// assert_eq!((&*constant, &*computed), (&b"done"[..], &b"3 done"[..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer(Cow<'static, [u8]>);

/// Why a call was refused; for people, so mostly text.
///
/// Made from a `&'static str`, a `String`, or with [`Rejection::display`] from an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection(Cow<'static, [u8]>);

impl Rejection {
    /// Refuses with the text of an error, a number, a `format_args!`.
    pub fn display(reason: impl Display) -> Rejection {
        Rejection::from(reason.to_string())
    }
}

impl Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl core::error::Error for Rejection {}

macro_rules! bytes {
    ($type:ident) => {
        impl Deref for $type {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<Vec<u8>> for $type {
            fn from(bytes: Vec<u8>) -> $type {
                $type(Cow::Owned(bytes))
            }
        }

        impl From<String> for $type {
            fn from(text: String) -> $type {
                $type(Cow::Owned(text.into_bytes()))
            }
        }

        impl From<&'static str> for $type {
            fn from(text: &'static str) -> $type {
                $type(Cow::Borrowed(text.as_bytes()))
            }
        }

        impl From<&'static [u8]> for $type {
            fn from(bytes: &'static [u8]) -> $type {
                $type(Cow::Borrowed(bytes))
            }
        }

        impl $type {
            pub(crate) fn into_bytes(self) -> Cow<'static, [u8]> {
                self.0
            }
        }
    };
}

bytes!(Answer);
bytes!(Rejection);
