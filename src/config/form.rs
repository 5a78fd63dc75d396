//! The forms a single setting may have. Each checks itself while it is read, and says what would be
//! right without repeating what was wrong: it might be a secret.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;

use crate::access::Role;
use crate::server::ClientAuth;

/// One setting's value.
pub trait Form: Sized {
    /// What would be right, as the end of a sentence that begins with "must be".
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Reads a text.
    fn from_text(text: &str) -> Option<Self>;

    /// Reads a number, where one may be written without quotes.
    fn from_integer(_: u64) -> Option<Self> {
        None
    }

    /// Reads a number with a fraction, where one may be written without quotes.
    fn from_float(_: f64) -> Option<Self> {
        None
    }

    /// Returns the value as a text in `config.toml`.
    fn to_text(&self) -> String;

    /// Writes the value as it stands in `config.toml`.
    fn write<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_text())
    }
}

/// Reads a [`Form`].
pub(super) struct FormVisitor<T>(pub PhantomData<T>);

impl<T: Form> Visitor<'_> for FormVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::expecting(f)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| refused(&self))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<T, E> {
        u64::try_from(n)
            .ok()
            .and_then(T::from_integer)
            .ok_or_else(|| refused(&self))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<T, E> {
        T::from_float(n).ok_or_else(|| refused(&self))
    }
}

/// Returns the error of a wrong value: names what would be right, holds nothing of what was there.
pub(super) fn refused<'de, V: Visitor<'de>, E: Error>(visitor: &V) -> E {
    E::invalid_value(Unexpected::Other("value"), visitor)
}

/// Lets serde read and write a [`Form`].
macro_rules! leaf {
    ([$($generics:tt)*] $name:ty) => {
        impl<'de, $($generics)*> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any($crate::config::form::FormVisitor(std::marker::PhantomData))
            }
        }

        impl<$($generics)*> serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                $crate::config::form::Form::write(self, s)
            }
        }
    };
    ($($name:ty),*) => {
        $($crate::config::form::leaf!([] $name);)*
    };
}
pub(super) use leaf;

/// A whole number between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> From<Count<MIN, MAX>> for usize {
    fn from(count: Count<MIN, MAX>) -> Self {
        Self::try_from(count.0).unwrap_or(Self::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> From<Count<MIN, MAX>> for u32 {
    fn from(count: Count<MIN, MAX>) -> Self {
        Self::try_from(count.0).unwrap_or(Self::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Form for Count<MIN, MAX> {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn from_text(_: &str) -> Option<Self> {
        None
    }

    fn from_integer(n: u64) -> Option<Self> {
        (MIN..=MAX).contains(&n).then_some(Self(n))
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }

    fn write<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}
leaf!([const MIN: u64, const MAX: u64] Count<MIN, MAX>);

/// Says of foreign types, a line each, what would be right, how a text is read and how a value is
/// shown; and how a number is read, where one may stand without quotes.
macro_rules! forms {
    ($($type:ty: $right:expr, $read:expr, $show:expr $(, $integer:expr)?;)*) => {$(
        impl $crate::config::form::Form for $type {
            fn expecting(f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", $right)
            }

            fn from_text(text: &str) -> Option<Self> {
                let read: fn(&str) -> Option<Self> = $read;
                read(text)
            }

            $(fn from_integer(n: u64) -> Option<Self> {
                let read: fn(u64) -> Option<Self> = $integer;
                read(n)
            })?

            fn to_text(&self) -> String {
                let show: fn(&Self) -> String = $show;
                show(self)
            }
        }
    )*};
}
pub(super) use forms;

/// Declares texts, a line each: what would be right, and whether a text is.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $right:expr, $good:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub String);

        $crate::config::form::forms! {
            $name: $right, |text| {
                let good: fn(&str) -> bool = $good;
                good(text).then(|| Self(text.to_owned()))
            }, |this| this.0.clone();
        }
        $crate::config::form::leaf!($name);
    )*};
}
pub(super) use texts;

forms! {
    SocketAddr: "an IP address and a port, such as \"127.0.0.1:8080\"",
        |text| text.parse().ok(), Self::to_string;
    Role: "\"reader\" or \"operator\"",
        |text| [Self::Reader, Self::Operator].into_iter().find(|role| role.as_str() == text),
        |role| role.as_str().to_owned();
    ClientAuth: "\"none\", \"optional\" or \"required\"",
        |text| Self::ALL.into_iter().find(|word| word.as_str() == text),
        |word| word.as_str().to_owned();
}

/// Cuts options from a table that has members of the same names.
macro_rules! cut {
    ($options:ident from $table:expr => { $($member:ident),* $(,)? } $($rest:tt)*) => {
        $options { $($member: $table.$member.into(),)* $($rest)* }
    };
}
pub(super) use cut;

/// A form that is one of a few words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $right:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Returns the word used in settings.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        forms! {
            $name: $right,
            |text| match text { $($word => Some(Self::$variant),)* _ => None },
            |this| this.as_str().to_owned();
        }
    };
}

words! {
    /// Who is let in.
    AuthMode, "\"keys\" or \"open\"", {
        /// Callers that present a caller key or certificate.
        Keys = "keys",
        /// Everyone; for loopback only.
        Open = "open",
    }
}

words! {
    /// What the store is made of.
    StoreKind, "\"disk\", \"valkey\" or \"none\"", {
        /// A file on this machine.
        Disk = "disk",
        /// A Valkey or Redis that other gateways use too.
        Valkey = "valkey",
        /// Nothing: what is remembered ends with the process.
        None = "none",
    }
}

words! {
    /// What the gateway does while Valkey does not answer.
    WhenAway, "\"open\", \"stale_only\" or \"closed\"", {
        /// It goes on alone.
        Open = "open",
        /// It makes no vendor calls.
        StaleOnly = "stale_only",
        /// After a few seconds it serves nothing.
        Closed = "closed",
    }
}

words! {
    /// How much is logged.
    Level, "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"", {
        /// Only what failed.
        Error = "error",
        /// And what an operator should look at.
        Warn = "warn",
        /// And what happened.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

/// A foreign type as a setting.
#[derive(Clone, Debug)]
pub struct Of<T>(pub T);

impl<'de, T: Form> serde::Deserialize<'de> for Of<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(FormVisitor(PhantomData)).map(Self)
    }
}

impl<T: Form> serde::Serialize for Of<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.write(s)
    }
}

leaf!(AuthMode, Level, StoreKind, WhenAway);
