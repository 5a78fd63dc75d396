//! Where secrets are kept, and reading them: apart from the settings, never printed.

use std::convert::Infallible;
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use toml::Value;

use super::check::Settings;
use super::file::File;
use super::form::Setting as _;
use super::report::{Refusal, Report};
use super::tls::{self, Certificates};
use super::traces::HEADERS_BYTES_MAX;
use super::vendor::{AccountSource, VendorSettings};
use crate::clock::Clock;
use crate::domain::{AccountId, PerVendor, Vendor};
use crate::secrets::{Secret, SecretSource, VendorKey, VendorKeys, read_file};
use crate::server::{TlsFile, TlsOptions, TlsSetup};
use crate::traces::TraceHeaders;

/// Readable by users who are neither the owner nor of the file's group.
const WORLD_READABLE: u32 = 0o004;

/// Returns the secret that two settings name, `<path>_env` and `<path>_file`. Neither: `None`.
pub(super) fn named(
    path: &str,
    variable: &Option<String>,
    file: &Option<PathBuf>,
    report: &mut Report,
) -> Option<SecretSource> {
    match (variable, file) {
        (None, None) => None,
        (Some(variable), None) => Some(SecretSource::Env(variable.clone())),
        (None, Some(file)) => Some(SecretSource::File(file.clone())),
        (Some(_), Some(_)) => {
            let setting = path.rsplit('.').next().unwrap_or(path);
            let text = format!("is given together with {setting}_env; keep one of them");
            report.rule(&format!("{path}_file"), text);
            None
        }
    }
}

/// Returns the variables that the settings name as holders of secrets: those settings end with
/// `_env`.
pub(super) fn variables_named(file: &File) -> Vec<String> {
    let mut names = Vec::new();
    File::each(file, "", &mut |path, value, _| {
        let name = value.as_ref().and_then(Value::as_str);
        names.extend(name.filter(|_| path.ends_with("_env")).map(str::to_owned));
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

/// Every secret the settings name. Prints as redacted.
#[derive(Clone, Debug)]
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
            token_key: None,
            token_key_previous: None,
            trace_headers: TraceHeaders::default(),
            valkey_password: None,
            certificates: Certificates::default(),
            warnings: Vec::new(),
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
    fn text(&mut self, path: &str, source: Option<&SecretSource>) -> Option<Secret> {
        self.read(path, source?, Ok::<_, Infallible>)
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
    fn trace_headers(&mut self, source: &SecretSource) -> Option<TraceHeaders> {
        const SETTING: &str = "traces.headers_file";
        let SecretSource::File(path) = source else {
            return None;
        };
        let read = read_file(path, HEADERS_BYTES_MAX).map_err(|why| why.to_string());
        let headers = read.and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
            TraceHeaders::parse(text).map_err(|why| why.to_string())
        });
        let headers = headers
            .map_err(|why| self.wrong(SETTING, source, why))
            .ok()?;
        self.warn_if_readable(SETTING, source);
        Some(headers)
    }

    fn tls(&mut self, path: &str, options: &TlsOptions) -> Option<TlsSetup> {
        let at = |file: TlsFile| format!("{path}.{}", file.setting());
        let source = |file| {
            let path = match file {
                TlsFile::Certificate => &options.certificate_file,
                TlsFile::PrivateKey => &options.private_key_file,
                TlsFile::ClientCa => options.client_ca_file.as_ref()?,
            };
            Some(SecretSource::File(path.clone()))
        };
        let named = |file| source(file).map_or_else(String::new, |source| shown(&source));
        match TlsSetup::load(options) {
            Ok(setup) => {
                if let Some(key) = source(TlsFile::PrivateKey) {
                    self.warn_if_readable(&at(TlsFile::PrivateKey), &key);
                }
                if let Some(why) = setup.untimely(Clock::system().wall()) {
                    let file = TlsFile::Certificate;
                    let (setting, file) = (at(file), named(file));
                    self.warnings
                        .push(format!("{setting}: the certificate in {file} {why}"));
                }
                Some(setup)
            }
            Err(problem) => {
                let text = format!("{} {}", named(problem.file), problem.why);
                self.report.add(&at(problem.file), text);
                None
            }
        }
    }

    fn vendor(&mut self, settings: &VendorSettings) -> Option<VendorSecrets> {
        let at = |setting: &str| format!("{}.{setting}", settings.vendor().as_str());
        if settings.optional
            && let Err(problem) = settings.key.read()
            && problem.is_absence()
        {
            self.warnings.push(format!(
                "{}: disabled, because {} {problem} ({} = true)",
                settings.vendor().as_str(),
                shown(&settings.key),
                at("optional"),
            ));
            return None;
        }
        let primary = self.read(&at("api_key"), &settings.key, VendorKey::checked);
        let fallback = settings.key_fallback.as_ref();
        let fallback =
            fallback.map(|source| self.read(&at("api_key_fallback"), source, VendorKey::checked));
        let account = match &settings.account {
            AccountSource::Given(id) => Some(id.clone()),
            AccountSource::Kept(source) => self.read(&at("account_id"), source, |text| {
                AccountId::parse(text.reveal())
            }),
        };
        Some(VendorSecrets {
            keys: VendorKeys {
                primary: primary?,
                fallback: match fallback {
                    Some(fallback) => Some(fallback?),
                    None => None,
                },
            },
            account: account?,
        })
    }
}

impl Settings {
    /// Returns the files that secrets and certificates are read from: a change of their content is
    /// a rotation.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let of_vendors = self.vendors.present().flat_map(|vendor| {
            let account = match &vendor.account {
                AccountSource::Kept(source) => Some(source),
                AccountSource::Given(_) => None,
            };
            [Some(&vendor.key), vendor.key_fallback.as_ref(), account]
        });
        let listeners = [&self.server.public_tls, &self.server.admin_tls];
        let of_tls = listeners.into_iter().flatten().flat_map(|tls| {
            let always = [&tls.certificate_file, &tls.private_key_file];
            always.into_iter().chain(&tls.client_ca_file).cloned()
        });
        of_vendors
            .chain([self.token_key.as_ref(), self.token_key_previous.as_ref()])
            .chain([self
                .traces
                .as_ref()
                .and_then(|traces| traces.headers.as_ref())])
            .flatten()
            .filter_map(|source| match source {
                SecretSource::File(path) => Some(path.clone()),
                SecretSource::Env(_) => None,
            })
            .chain(of_tls)
            .collect()
    }

    /// Reads every secret the settings name, now: at the start and at each reload. Blocks the
    /// thread; files that do not answer are given up.
    ///
    /// # Errors
    /// Every name that leads to nothing usable; no part of any secret.
    pub fn read_secrets(&self) -> Result<Secrets, Refusal> {
        let mut reader = Reader {
            report: Report::about(self.label.clone(), self.places.clone()),
            warnings: Vec::new(),
        };
        let vendors = PerVendor::from_fn(|vendor| {
            let settings = self.vendors.get(vendor).as_ref();
            settings.and_then(|settings| reader.vendor(settings))
        });
        if vendors.present().next().is_none() {
            for vendor in self.vendors.present().filter(|vendor| vendor.optional) {
                let path = setting(
                    &format!("{}.api_key", vendor.vendor().as_str()),
                    &vendor.key,
                );
                let why =
                    "holds no key, and no other vendor has one; at least one vendor needs a key";
                reader.wrong(&path, &vendor.key, why);
            }
        }
        let token_key = reader.text("pagination.token_key", self.token_key.as_ref());
        let previous = self.token_key_previous.as_ref();
        let token_key_previous = reader.text("pagination.token_key_previous", previous);
        let headers = self
            .traces
            .as_ref()
            .and_then(|traces| traces.headers.as_ref());
        let trace_headers = headers.and_then(|source| reader.trace_headers(source));
        let valkey = self.store.valkey.as_ref();
        let password = valkey.and_then(|valkey| valkey.password.as_ref());
        let valkey_password = reader.text("store.valkey.password", password);
        let mut of_listener =
            |path, tls: &Option<TlsOptions>| tls.as_ref().and_then(|tls| reader.tls(path, tls));
        let certificates = Certificates {
            public: of_listener(tls::PUBLIC, &self.server.public_tls),
            admin: of_listener(tls::ADMIN, &self.server.admin_tls),
        };
        reader.report.verdict()?;
        Ok(Secrets {
            vendors,
            token_key,
            token_key_previous,
            trace_headers: trace_headers.unwrap_or_default(),
            valkey_password,
            certificates,
            warnings: reader.warnings,
        })
    }
}
