//! Forms that are lists for browsers: whose pages may read answers, and under which names the admin
//! listener is asked.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;

use super::form::Form;
use super::lists::list;
use crate::exchange::site::{Origin, is_host};

/// Origins of web pages. Each request is compared with all of them.
const ORIGINS_MAX: usize = 100;
/// Names of one listener.
const HOSTS_MAX: usize = 100;

impl Form for Origin {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an origin")
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// The name of a host.
#[derive(Clone, Debug)]
struct Host(String);

impl Form for Host {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host")
    }

    fn from_text(text: &str) -> Option<Self> {
        is_host(text).then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// Declares a list of forms.
macro_rules! listed {
    ($(#[$doc:meta])* $name:ident, $form:ty => $item:ty, $max:ident, $expecting:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name(pub Vec<$item>);

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Items;
                impl<'de> Visitor<'de> for Items {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, $expecting, $max)
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<$name, A::Error> {
                        let items: Vec<$form> = list(seq, $max, &self)?;
                        Ok($name(items.into_iter().map(Into::into).collect()))
                    }
                }
                d.deserialize_any(Items)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_seq(self.0.iter().map(|item| item.to_string()))
            }
        }
    };
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

listed!(
    /// Whose pages may read answers.
    Origins,
    Origin => Origin,
    ORIGINS_MAX,
    "a list of at most {} origins such as \"https://dash.example:8443\": http or https, in lower case, without a path and without the scheme's own port"
);
listed!(
    /// Under which names a listener is asked.
    Hosts,
    Host => String,
    HOSTS_MAX,
    "a list of at most {} names of hosts in lower case, without ports"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_for_browsers_are_checked_whole() {
        let origins = |text: &str| toml::from_str::<toml::Table>(text).unwrap()["x"].clone();
        let of = |text: &str| origins(text).try_into::<Origins>().map(|o| o.0.len()).ok();
        assert_eq!(of("x = []"), Some(0));
        assert_eq!(of("x = [\"https://a.example\", \"http://b:1\"]"), Some(2));
        assert_eq!(of("x = [\"https://a.example\", \"*\"]"), None);
        assert_eq!(of("x = \"https://a.example\""), None);
        let many = format!("x = [{}]", "\"http://a\",".repeat(ORIGINS_MAX + 1));
        assert_eq!(of(&many), None);
        let hosts = |text: &str| origins(text).try_into::<Hosts>().map(|o| o.0).ok();
        assert_eq!(hosts("x = [\"a.b\"]"), Some(vec!["a.b".to_owned()]));
        assert_eq!(hosts("x = [\"a.b:9180\"]"), None);
        assert_eq!(hosts("x = [\"A\"]"), None);
    }
}
