//! `msp-gateway check`: would the gateway start with these settings?

use std::io::Write;
use std::path::Path;

use crate::config;

/// Validates settings and secrets. Prints the settings in force to `out`, problems and warnings to
/// `err`, one a line. Returns the exit code: 0 fine, 1 refused.
pub fn run(path: Option<&Path>, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
    match effective(path, err) {
        Ok(text) => match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => 0,
            // The reader went away; `check | head` is no failure.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => 0,
            Err(why) => tell(err, &super::unwritten(&why)),
        },
        Err(lines) => tell(err, &lines),
    }
}

fn tell(err: &mut dyn Write, lines: &str) -> i32 {
    // If nobody can be told, the exit code still says it.
    let _ = writeln!(err, "{lines}");
    1
}

fn effective(path: Option<&Path>, err: &mut dyn Write) -> Result<String, String> {
    let settings = config::load(path).map_err(|refusal| refusal.to_string())?;
    let secrets = settings
        .read_secrets()
        .map_err(|refusal| refusal.to_string())?;
    for warning in settings.warnings.iter().chain(&secrets.warnings) {
        let _ = writeln!(err, "warning: {warning}");
    }
    settings
        .effective()
        .map_err(|_| "the settings cannot be shown as TOML".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(text: &str) -> (i32, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(Some(&path), &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(err))
    }

    #[test]
    fn settings_in_force_are_shown_with_their_origin() {
        let (code, out, err) =
            run_on("[auth]\nmode = \"open\"\n[wiv]\ntimeout = \"90s\"\napi_key_env = \"PATH\"\n");
        assert_eq!(code, 0, "{err}");
        assert_eq!(err, "");
        let line = |start: &str| out.lines().find(|l| l.starts_with(start)).unwrap();
        assert!(line("mode = \"open\" # ").ends_with("config.toml"));
        assert!(line("timeout = \"1m30s\" # ").ends_with("config.toml"));
        assert_eq!(line("derive_customer"), "derive_customer = true # default");
        // It is TOML still.
        toml::from_str::<toml::Table>(&out).unwrap();
    }

    #[test]
    fn a_named_secret_that_is_missing_refuses() {
        let (code, out, err) =
            run_on("auth.mode = \"open\"\nwiv.api_key_env = \"MSP_GATEWAY_TEST_SURELY_UNSET\"\n");
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("config.toml:2: wiv.api_key_env: "), "{err}");
        assert!(
            err.contains("MSP_GATEWAY_TEST_SURELY_UNSET is not set"),
            "{err}"
        );
        assert_eq!(err.lines().count(), 1);
    }
}
