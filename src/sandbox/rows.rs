//! The text of customers and cases. Each row is a pure function of the seed and its number. Rows
//! differ in spelling: order of members, spaces, escapes, extra members, and numbers whose digits a
//! careless reader would lose.

use jiff::civil::Date;

use super::dice::{Dice, Domain};
use super::json::{Style, object, quote};

/// The field names of a customer in a request, with the member that each selects in the answer.
pub(super) const FIELDS: [(&str, &str); 11] = [
    ("id", "customer_id"),
    ("name", "customer_name"),
    ("users_number", "users_number"),
    ("active_workflows", "active_workflows"),
    ("cost_impact", "cost_impact"),
    ("realized_savings", "realized_savings"),
    ("num_of_integrations", "num_of_integrations"),
    ("integration_types", "integration_types"),
    ("integrations", "integrations"),
    ("successful_runs", "successful_runs"),
    ("failed_runs", "failed_runs"),
];

/// The types of cases.
pub(super) const CASE_TYPES: [&str; 6] = [
    "idle_resource",
    "rightsizing",
    "commitment_coverage",
    "storage_lifecycle",
    "anomaly",
    "untagged_spend",
];

/// The states of a case, as the vendor documents them.
pub(super) const STATUSES: [&str; 7] = [
    "To Do",
    "Acknowledged",
    "In Progress",
    "Exclude",
    "Completed",
    "Verified",
    "Expired",
];

const FIRST: [&str; 20] = [
    "Acme",
    "Müller & Söhne",
    "Zażółć",
    "東京クラウド",
    "O'Brien",
    "Ærø",
    "Contoso",
    "Łódź Metal",
    "\"Quoted\"",
    "Crème Brûlée",
    "Данные",
    "Northwind",
    "back\\slash",
    "Smith/Jones",
    "Café 24",
    "Ðelta",
    "नमस्ते",
    "Fabrikam",
    "🚀 Rocket",
    "Initech",
];
const SECOND: [&str; 11] = [
    "GmbH",
    "Ltd",
    "S.A.",
    "株式会社",
    "Holdings",
    "Group",
    "LLC",
    "Systems",
    "& Co",
    "Labs",
    "AG",
];
const CLOUDS: [&str; 5] = ["aws", "azure", "gcp", "oci", "kubernetes"];
const REGIONS: [&str; 5] = [
    "us-east-1",
    "eu-central-1",
    "westeurope",
    "asia-northeast1",
    "sa-east-1",
];
const KINDS: [&str; 6] = ["ec2", "rds", "disk", "vm", "bucket", "snapshot"];
const PEOPLE: [&str; 6] = [
    "Zoë Ångström",
    "李雷",
    "J. O'Neil",
    "Björk",
    "Ana \"A\" Núñez",
    "Sam",
];

/// Returns the name of the customer at `index`. It is unique: once all pairs of words are used,
/// names have a number too.
pub(super) fn customer_name(index: usize) -> String {
    // 21 and 11 have no common divisor, so no pair is repeated within 220 customers.
    let first = FIRST.get(index % FIRST.len()).copied().unwrap_or("");
    let at = (index / FIRST.len() + index) % SECOND.len();
    let second = SECOND.get(at).copied().unwrap_or("");
    if index < FIRST.len() * SECOND.len() {
        format!("{first} {second}")
    } else {
        format!("{first} {second} {index}")
    }
}

/// Returns the members of the customer at `index` in its own order: name and JSON text.
pub(super) fn customer_members(seed: u64, index: usize) -> Vec<(&'static str, String)> {
    let mut dice = Dice::new(seed, Domain::Customers, index as u64);
    let style = style(&mut dice);
    let types: Vec<&str> = CLOUDS
        .iter()
        .copied()
        .filter(|_| dice.percent(45))
        .collect();
    let quoted: Vec<String> = types.iter().map(|cloud| quote(cloud, style)).collect();
    let integrations: Vec<String> = types
        .iter()
        .map(|cloud| {
            object(
                &[
                    ("type", quote(cloud, style)),
                    (
                        "account",
                        quote(&dice.below(1_000_000_000_000).to_string(), style),
                    ),
                    (
                        "last_sync",
                        (if dice.percent(20) {
                            "null"
                        } else {
                            "1763600000.0"
                        })
                        .to_owned(),
                    ),
                ],
                style,
            )
        })
        .collect();
    let cost = money(&mut dice);
    // The type of money is not documented. Some customers have it as text.
    let cost = if index % 4 == 3 {
        quote(&cost, style)
    } else {
        cost
    };
    let mut members = vec![
        ("customer_id", quote(&format!("org_{}", index + 1), style)),
        ("customer_name", quote(&customer_name(index), style)),
        ("users_number", dice.below(400).to_string()),
        ("active_workflows", dice.below(60).to_string()),
        ("cost_impact", cost),
        (
            "realized_savings",
            if dice.percent(15) {
                "null".to_owned()
            } else {
                money(&mut dice)
            },
        ),
        ("num_of_integrations", types.len().to_string()),
        ("integration_types", super::json::array(&quoted)),
        ("integrations", super::json::array(&integrations)),
        ("successful_runs", dice.below(90_000).to_string()),
        ("failed_runs", dice.below(900).to_string()),
    ];
    dice.shuffle(&mut members);
    members
}

/// What the text of a case depends on, besides the seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CaseFacts<'a> {
    /// Its number in the world, which selects its stream of random numbers.
    pub(super) number: u64,
    /// Its id, if it has one.
    pub(super) id: Option<&'a str>,
    /// Its customer's id and name, if it has one.
    pub(super) customer: Option<(&'a str, &'a str)>,
    /// One of [`CASE_TYPES`].
    pub(super) case_type: &'a str,
    /// One of [`STATUSES`].
    pub(super) status: &'a str,
    /// The day on which it was created.
    pub(super) date: Date,
}

/// Returns the text of one case, about 500 bytes.
pub(super) fn case_text(seed: u64, facts: CaseFacts<'_>) -> String {
    let mut dice = Dice::new(seed, Domain::CaseText, facts.number);
    let style = style(&mut dice);
    let mut members: Vec<(&str, String)> = Vec::with_capacity(20);
    if let Some(id) = facts.id {
        members.push(("case_id", quote(id, style)));
    }
    if let Some((id, name)) = facts.customer {
        members.push(("customer_id", quote(id, style)));
        members.push(("customer_name", quote(name, style)));
    }
    members.push(("case_type", quote(facts.case_type, style)));
    members.push(("status", quote(facts.status, style)));
    members.push(("created_at", quote(&moment(&mut dice, facts.date), style)));
    let updated = (!dice.percent(25)).then(|| quote(&moment(&mut dice, facts.date), style));
    members.push(("updated_at", updated.unwrap_or_else(|| "null".to_owned())));
    let title = format!(
        "{} {} in {} / {}",
        dice.word(&[
            "Resize",
            "Delete",
            "Übergröße:",
            "削除:",
            "Review \"unused\""
        ]),
        dice.word(&KINDS),
        dice.word(&REGIONS),
        dice.word(&PEOPLE),
    );
    members.push(("title", quote(&title, style)));
    members.push(("cost_impact", money(&mut dice)));
    members.push((
        "realized_savings",
        if dice.percent(30) {
            "null".to_owned()
        } else {
            money(&mut dice)
        },
    ));
    members.push(("tags", tags(&mut dice, style)));
    members.push(("owner", owner(&mut dice, style)));
    members.push(("resources", resources(&mut dice, style)));
    if dice.percent(15) {
        extras(&mut dice, style, &mut members);
    }
    dice.shuffle(&mut members);
    object(&members, style)
}

fn style(dice: &mut Dice) -> Style {
    Style {
        spaced: dice.percent(30),
        ascii: dice.percent(40),
        slashes: dice.percent(20),
    }
}

/// Returns an amount in one of the spellings whose digits a reader of floats would change.
fn money(dice: &mut Dice) -> String {
    let (whole, cents) = (dice.below(100_000), dice.below(100));
    match dice.below(20) {
        0 => "12345678901234567890.123".to_owned(),
        1 => format!("{whole}.{:02}E+2", cents),
        2 => "0.10000000000000000555".to_owned(),
        3 => "-0.0".to_owned(),
        4 => format!("-{whole}.5000"),
        5 => whole.to_string(),
        6 => "9007199254740993".to_owned(),
        _ => format!("{whole}.{cents:02}"),
    }
}

fn moment(dice: &mut Dice, date: Date) -> String {
    let (hour, minute, second) = (dice.below(24), dice.below(60), dice.below(60));
    let zone = dice.word(&["Z", "+00:00", ".000Z", ".123456+00:00"]);
    format!("{date}T{hour:02}:{minute:02}:{second:02}{zone}")
}

fn tags(dice: &mut Dice, style: Style) -> String {
    let mut tags = vec![
        (
            "env",
            quote(dice.word(&["prod", "staging", "développement", ""]), style),
        ),
        ("cost-center", dice.below(9_000).to_string()),
    ];
    if dice.percent(20) {
        tags.push(("case_id", quote("not the row's id", style)));
    }
    object(&tags, style)
}

fn owner(dice: &mut Dice, style: Style) -> String {
    if dice.percent(25) {
        return "null".to_owned();
    }
    let email = if dice.percent(30) {
        "null".to_owned()
    } else {
        quote("owner@example.com", style)
    };
    object(
        &[("name", quote(dice.word(&PEOPLE), style)), ("email", email)],
        style,
    )
}

fn resources(dice: &mut Dice, style: Style) -> String {
    let rows: Vec<String> = (0..dice.below(3))
        .map(|_| {
            let id = format!("i-{:012x}", dice.next() >> 16);
            let members = [
                ("id", quote(&id, style)),
                ("type", quote(dice.word(&KINDS), style)),
                ("monthly_cost", money(dice)),
            ];
            object(&members, style)
        })
        .collect();
    super::json::array(&rows)
}

fn extras(dice: &mut Dice, style: Style, members: &mut Vec<(&'static str, String)>) {
    members.push(("customer.score", format!("{}e-3", dice.below(1_000))));
    members.push((
        "notes",
        quote("=SUM(A1:A9)\n\tsee \"runbook\" \u{2028}", style),
    ));
    members.push(("labels", "[]".to_owned()));
    members.push((
        "details",
        r#"{"a":{"b":[1,2.50,{"c":null}]},"":{}}"#.to_owned(),
    ));
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
