//! Where secrets are kept, and reading them: apart from the settings, never printed.

use std::convert::Infallible;
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use toml::Value;

use super::check::Settings;
use super::file::File;
use super::form::Setting as _;
use super::report::{Refusal, Report};
use super::vendor::{AccountSource, VendorSettings};
use crate::clock::Clock;
use crate::domain::{AccountId, PerVendor, Vendor};
use crate::secrets::{Secret, SecretSource, VendorKey, VendorKeys, read_file};
use crate::server::{TlsFile, TlsOptions, TlsSetup};
use crate::traces::TraceHeaders;

/// Longest file of headers.
const HEADERS_BYTES_MAX: usize = 16 << 10;

/// Readable by users who are neither the owner nor of the file's group.
const WORLD_READABLE: u32 = 0o004;

/// Names the place where a secret is kept: a variable or a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretName {
    /// The variable.
    pub env: Option<String>,
    /// The file.
    pub file: Option<PathBuf>,
}

impl SecretName {
    /// Returns the place, if exactly one is named.
    pub(super) fn source(&self) -> Option<SecretSource> {
        match (self.env.clone(), self.file.clone()) {
            (Some(variable), None) => Some(SecretSource::Env(variable)),
            (None, Some(file)) => Some(SecretSource::File(file)),
            _ => None,
        }
    }
}

/// Returns the names that the settings with such a path hold.
pub(super) fn names(file: &File, wanted: fn(&str) -> bool) -> Vec<String> {
    let mut names = Vec::new();
    File::each(file, "", &mut |path, value, _| {
        let name = value.as_ref().and_then(Value::as_str).unwrap_or_default();
        if wanted(path) && !name.is_empty() {
            names.push(name.to_owned());
        }
    });
    names
}

/// The secrets of one vendor.
#[derive(Clone, Debug)]
pub struct VendorSecrets {
    /// Its keys.
    pub keys: VendorKeys,
    /// Whose data they show.
    pub account: AccountId,
}

/// TLS of both listeners, its files read; `None` where a listener is in the clear.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// For callers.
    pub public: Option<TlsSetup>,
    /// For operators and Prometheus.
    pub admin: Option<TlsSetup>,
}

/// Every secret the settings name. Prints as redacted.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The vendors'; `None` where disabled.
    pub vendors: PerVendor<Option<VendorSecrets>>,
    /// Stretched into the key that seals page tokens.
    pub token_key: Option<Secret>,
    /// The previous token key.
    pub token_key_previous: Option<Secret>,
    /// Sent with every export of spans.
    pub trace_headers: TraceHeaders,
    /// Of the user in `store.valkey`.
    pub valkey_password: Option<Secret>,
    /// Certificates and keys of the listeners.
    pub certificates: Certificates,
    /// Files that others may read, certificates that are out of date; one line each, no values.
    pub warnings: Vec<String>,
}

impl Secrets {
    /// Returns the account and the key of these vendors, and no other secret. `None` if one of
    /// them has a wrong form.
    pub fn of_keys(keys: &[(Vendor, &str, &str)]) -> Option<Self> {
        let vendors = PerVendor::from_fn(|vendor| {
            let (_, account, key) = keys.iter().find(|(of, _, _)| *of == vendor)?;
            Some(VendorSecrets {
                keys: VendorKeys {
                    primary: VendorKey::new(Secret::parse(key).ok()?),
                    fallback: None,
                },
                account: AccountId::parse(account).ok()?,
            })
        });
        (vendors.present().count() == keys.len()).then(|| Self {
            vendors,
            ..Self::default()
        })
    }
}

/// A source as it may be shown. The commonest mistake is to put a key where its name belongs, so
/// only what looks like a name is repeated.
fn shown(source: &SecretSource) -> String {
    match source {
        SecretSource::Env(name)
            if name.contains('_') && name.bytes().filter(u8::is_ascii_digit).count() <= 4 =>
        {
            source.to_string()
        }
        SecretSource::Env(_) => "the environment variable it names".to_owned(),
        SecretSource::File(path) if path.is_absolute() => source.to_string(),
        SecretSource::File(_) => "the file it names".to_owned(),
    }
}

/// The setting that names the source.
fn setting(path: &str, source: &SecretSource) -> String {
    match source {
        SecretSource::Env(_) => format!("{path}_env"),
        SecretSource::File(_) => format!("{path}_file"),
    }
}

struct Reader {
    report: Report,
    warnings: Vec<String>,
}

impl Reader {
    /// Reports what is wrong with a source or its content.
    fn wrong(&mut self, setting: &str, source: &SecretSource, why: impl Display) {
        self.report.add(setting, format!("{} {why}", shown(source)));
    }

    /// Reads and parses the secret that `<path>_env` or `<path>_file` names.
    fn read<T, E: Display>(
        &mut self,
        path: &str,
        source: &SecretSource,
        parse: impl FnOnce(Secret) -> Result<T, E>,
    ) -> Option<T> {
        let setting = setting(path, source);
        let secret = source
            .read()
            .map_err(|why| self.wrong(&setting, source, why));
        let secret = secret.ok()?;
        self.warn_if_readable(&setting, source);
        let parsed = parse(secret).map_err(|why| self.wrong(&setting, source, why));
        parsed.ok()
    }

    /// Reads a secret of any form.
    fn text(&mut self, path: &str, name: &SecretName) -> Option<Secret> {
        self.read(path, &name.source()?, Ok::<_, Infallible>)
    }

    /// Warns if every user can read a file. The file was read before, because a look at a file that
    /// does not answer would never end.
    fn warn_if_readable(&mut self, setting: &str, source: &SecretSource) {
        if let SecretSource::File(file) = source
            && let Ok(about) = std::fs::metadata(file)
            && about.permissions().mode() & WORLD_READABLE != 0
        {
            self.warnings.push(format!(
                "{setting}: {} can be read by every user of this machine; chmod 640 it",
                shown(source)
            ));
        }
    }

    /// Reads the file of headers for the collector.
    fn trace_headers(&mut self, path: &Path) -> Option<TraceHeaders> {
        const SETTING: &str = "traces.headers_file";
        let source = SecretSource::File(path.to_owned());
        let read = read_file(path, HEADERS_BYTES_MAX).map_err(|why| why.to_string());
        let headers = read.and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
            TraceHeaders::parse(text).map_err(|why| why.to_string())
        });
        if headers.is_ok() {
            self.warn_if_readable(SETTING, &source);
        }
        headers
            .map_err(|why| self.wrong(SETTING, &source, why))
            .ok()
    }

    /// Reads the files of the TLS settings in this table.
    fn tls(&mut self, table: &str, options: &Option<TlsOptions>) -> Option<TlsSetup> {
        let options = options.as_ref()?;
        let at = |file: TlsFile| format!("{table}.{}", file.setting());
        let source = |file| {
            SecretSource::File(match file {
                TlsFile::Certificate => options.certificate_file.clone(),
                TlsFile::PrivateKey => options.private_key_file.clone(),
                TlsFile::ClientCa => options.client_ca_file.clone().unwrap_or_default(),
            })
        };
        let loaded = TlsSetup::load(options)
            .map_err(|wrong| self.wrong(&at(wrong.file), &source(wrong.file), wrong.why));
        let setup = loaded.ok()?;
        self.warn_if_readable(&at(TlsFile::PrivateKey), &source(TlsFile::PrivateKey));
        if let Some(why) = setup.untimely(Clock::system().wall()) {
            let (setting, file) = (at(TlsFile::Certificate), source(TlsFile::Certificate));
            let text = format!("{setting}: the certificate in {} {why}", shown(&file));
            self.warnings.push(text);
        }
        Some(setup)
    }

    fn vendor(&mut self, settings: &VendorSettings) -> Option<VendorSecrets> {
        let vendor = settings.vendor().as_str();
        if settings.optional
            && let Err(problem) = settings.key.read()
            && problem.is_absence()
        {
            self.warnings.push(format!(
                "{vendor}: disabled, because {} {problem} ({vendor}.optional = true)",
                shown(&settings.key),
            ));
            return None;
        }
        let mut key =
            |name, source| self.read(&format!("{vendor}.{name}"), source, VendorKey::checked);
        let primary = key("api_key", &settings.key);
        let fallback = settings.key_fallback.as_ref();
        let fallback = fallback.map(|source| key("api_key_fallback", source));
        let parse = |text: Secret| AccountId::parse(text.reveal());
        let account = match &settings.account {
            AccountSource::Given(id) => Some(id.clone()),
            AccountSource::Kept(kept) => self.read(&format!("{vendor}.account_id"), kept, parse),
        };
        Some(VendorSecrets {
            keys: VendorKeys {
                primary: primary?,
                // A fallback that is named must be there.
                fallback: fallback.map_or(Some(None), |key| key.map(Some))?,
            },
            account: account?,
        })
    }
}

impl Settings {
    /// Returns the files that secrets and certificates are read from: a change of their content is
    /// a rotation. The store's are read at the start only.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let files = names(&self.file, |path| {
            path.ends_with("_file") && !path.starts_with("store.")
        });
        files.into_iter().map(PathBuf::from).collect()
    }

    /// Reads every secret the settings name, now: at the start and at each reload. Blocks the
    /// thread; files that do not answer are given up.
    ///
    /// # Errors
    /// Every name that leads to nothing usable; no part of any secret.
    pub fn read_secrets(&self) -> Result<Secrets, Refusal> {
        let mut reader = Reader {
            report: self.report.clone(),
            warnings: Vec::new(),
        };
        let vendors = PerVendor::from_fn(|vendor| {
            let settings = self.vendors.get(vendor).as_ref();
            settings.and_then(|settings| reader.vendor(settings))
        });
        if vendors.present().next().is_none() {
            for vendor in self.vendors.present().filter(|vendor| vendor.optional) {
                let path = format!("{}.api_key", vendor.vendor().as_str());
                let why =
                    "holds no key, and no other vendor has one; at least one vendor needs a key";
                reader.wrong(&setting(&path, &vendor.key), &vendor.key, why);
            }
        }
        let (pages, traces) = (&self.file.pagination, &self.traces);
        let headers = traces.headers_file.as_ref();
        let headers = headers.filter(|_| traces.otlp_endpoint.is_some());
        let previous = &pages.token_key_previous;
        let secrets = Secrets {
            vendors,
            token_key: reader.text("pagination.token_key", &pages.token_key),
            token_key_previous: reader.text("pagination.token_key_previous", previous),
            trace_headers: headers
                .and_then(|file| reader.trace_headers(file))
                .unwrap_or_default(),
            valkey_password: reader.text("store.valkey.password", &self.store.valkey.password),
            certificates: Certificates {
                public: reader.tls("listen.public_tls", &self.server.public_tls),
                admin: reader.tls("listen.admin_tls", &self.server.admin_tls),
            },
            warnings: reader.warnings,
        };
        reader.report.verdict()?;
        Ok(secrets)
    }
}
