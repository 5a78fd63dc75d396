//! Settings: any text is taken whole or refused in lines that show nothing of it.

use msp_gateway::config::from_text;
use toml::de::{DeTable, DeValue};

/// Stands for a secret in the wrong place; the corpus puts it into values.
const CANARY: &str = "cAnArY";

/// Whether a name holds the canary: names may be told.
fn named(table: &DeTable<'_>) -> bool {
    table
        .iter()
        .any(|(name, value)| name.get_ref().contains(CANARY) || named_within(value.get_ref()))
}

fn named_within(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(table) => named(table),
        DeValue::Array(items) => items.iter().any(|item| named_within(item.get_ref())),
        _ => false,
    }
}

pub fn hold(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let read = from_text("fuzz.toml", text, []);
    let told = match read {
        Ok(settings) => {
            // What is shown as in force is taken again, as the same.
            let shown = settings.effective();
            drop(settings);
            shown
        }
        Err(refusal) => {
            assert!(!refusal.problems.is_empty());
            let told = refusal.to_string();
            for line in told.lines() {
                assert!(
                    line.starts_with("fuzz.toml") || line.starts_with("settings"),
                    "{line}"
                );
                assert!(line.chars().count() < 1_000, "{line}");
            }
            assert!(
                !told.chars().any(|c| c.is_control() && c != '\n'),
                "{told:?}"
            );
            // The names are read without the values, because a number may be too large.
            let names = DeTable::parse(text);
            if !names.is_ok_and(|table| named(table.get_ref())) {
                assert!(!told.contains(CANARY), "{told}");
            }
            told
        }
    };
    let again = from_text("fuzz.toml", text, []);
    let again = match again {
        Ok(settings) => settings.effective(),
        Err(refusal) => refusal.to_string(),
    };
    assert_eq!(again, told, "one text, one outcome");
}
