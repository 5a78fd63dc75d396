//! The customers and cases of wiv. Cases are in the vendor's order, newest day first. A search is a
//! slice of such a list. So an open scroll needs a few words of memory for any number of rows, and
//! never contains cases that were inserted after it.

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock};

use jiff::ToSpan;
use jiff::civil::Date;
use parking_lot::RwLock;

use super::dice::{Dice, Domain};
use super::options::{CaseIds, Options};
use super::rows::{CASE_TYPES, CaseFacts, STATUSES, case_text, customer_members, customer_name};

/// Maximum number of customers. Each needs about a kilobyte.
const CUSTOMERS_MAX: usize = 100_000;
/// Maximum number of cases, inserted ones included. Each needs about 600 bytes once it was read.
const CASES_MAX: usize = 1_000_000;
/// Number of days over which the cases are spread.
const DAYS: u64 = 3 * 365;
/// How steeply the customers' shares fall: the share of the n-th is n to the power of minus this.
const SKEW: f64 = 1.05;
/// Rows with this number or above are not found by any search. An endless scroll invents them.
const INVENTED_FROM: u64 = 1_000_000_000;

/// An organisation of wiv.
#[derive(Debug)]
pub(super) struct Customer {
    pub(super) id: String,
    pub(super) name: String,
    /// Names and JSON texts, in the row's own order.
    pub(super) members: Vec<(&'static str, String)>,
}

/// One case. Its text is made when it is first read.
#[derive(Debug)]
pub(super) struct Case {
    number: u64,
    /// Its index in `World::customers`.
    customer: Option<usize>,
    id: Option<String>,
    date: Date,
    case_type: &'static str,
    status: &'static str,
    /// Its order among the cases of its day. Moving a case changes it.
    rank: u64,
    text: OnceLock<Box<str>>,
}

/// Cases in the vendor's order, shared with every scroll that reads them.
type List = Arc<Vec<Arc<Case>>>;

#[derive(Clone, Debug, Default)]
struct Lists {
    all: List,
    by_customer: Vec<List>,
    next_number: u64,
}

/// The filter of a search.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) customer_id: Option<String>,
    /// First and last day, both included.
    pub(super) range: Option<(Date, Date)>,
    /// Two filters that the vendor does not document but accepts.
    pub(super) case_type: Option<String>,
    pub(super) status: Option<String>,
}

/// The rows of one search, frozen.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    list: List,
    start: usize,
    end: usize,
    /// The customer of the rows, for rows that must be invented.
    customer: Option<usize>,
}

impl Selection {
    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Returns up to `count` rows from `position` on.
    pub(super) fn rows(&self, position: usize, count: usize) -> Vec<Arc<Case>> {
        let from = self.start.saturating_add(position).min(self.end);
        let to = from.saturating_add(count).min(self.end);
        self.list.get(from..to).unwrap_or_default().to_vec()
    }

    /// Returns a row that no search finds: `nth` after the last one.
    pub(super) fn invented(&self, nth: usize) -> Arc<Case> {
        let number = INVENTED_FROM + nth as u64;
        let date = self.list.first().map_or(Date::MIN, |case| case.date);
        Arc::new(Case::new(
            0,
            number,
            self.customer,
            Some(format!("CASE-{number}")),
            date,
        ))
    }
}

impl Case {
    fn new(
        seed: u64,
        number: u64,
        customer: Option<usize>,
        id: Option<String>,
        date: Date,
    ) -> Self {
        let mut dice = Dice::new(seed ^ number, Domain::Cases, 1);
        Self {
            number,
            customer,
            id,
            date,
            case_type: dice.word(&CASE_TYPES),
            status: dice.word(&STATUSES),
            rank: number,
            text: OnceLock::new(),
        }
    }

    /// Returns the same case. Its text will be made again.
    fn again(&self) -> Self {
        Self {
            number: self.number,
            customer: self.customer,
            id: self.id.clone(),
            date: self.date,
            case_type: self.case_type,
            status: self.status,
            rank: self.rank,
            text: OnceLock::new(),
        }
    }

    /// Newest day first, and on one day the highest number first.
    fn place(&self) -> Reverse<(Date, u64)> {
        Reverse((self.date, self.rank))
    }
}

/// Everything that wiv knows.
#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    today: Date,
    case_ids: CaseIds,
    customers: Vec<Customer>,
    /// Cumulative shares of the customers that have cases.
    shares: Vec<f64>,
    lists: RwLock<Lists>,
    /// The original lists, for a reset.
    made: Lists,
}

impl World {
    /// Creates the world of `options`.
    pub(super) fn new(options: &Options) -> Self {
        let customers: Vec<Customer> = (0..options.customers.clamp(1, CUSTOMERS_MAX))
            .map(|index| Customer {
                id: format!("org_{}", index + 1),
                name: customer_name(index),
                members: customer_members(options.seed, index),
            })
            .collect();
        let mut sum = 0.0;
        let shares = (1..=customers.len() - customers.len() / 10)
            .map(|rank| {
                sum += (rank as f64).powf(-SKEW);
                sum
            })
            .collect();
        let mut world = Self {
            seed: options.seed,
            today: options.today,
            case_ids: options.case_ids,
            customers,
            shares,
            lists: RwLock::default(),
            made: Lists::default(),
        };
        world.made = world.make(options);
        *world.lists.write() = world.made.clone();
        world
    }

    fn make(&self, options: &Options) -> Lists {
        let mut dice = Dice::new(self.seed, Domain::Cases, 0);
        let mut dates: Vec<Date> = (0..options.cases.min(CASES_MAX))
            .map(|_| {
                let days = i64::try_from(dice.below(DAYS)).unwrap_or(0);
                self.today.saturating_sub(days.days())
            })
            .collect();
        // Numbers grow with the days, as a vendor's do. Inserted cases of past days are the
        // exception.
        dates.sort_unstable();
        let mut lists = Lists {
            all: List::default(),
            by_customer: vec![List::default(); self.customers.len()],
            next_number: 1,
        };
        let every = |nth: usize, number: u64| nth > 0 && number.is_multiple_of(nth as u64);
        let mut fresh = Vec::with_capacity(dates.len());
        let mut ordinals = vec![0_u64; self.customers.len()];
        for date in dates {
            let number = lists.next_number;
            lists.next_number += 1;
            let drawn = self.draw(&mut dice);
            let ordinal = ordinals.get_mut(drawn).map_or(0, |count| {
                *count += 1;
                *count
            });
            let customer = (!every(options.without_customer_id_every, number)).then_some(drawn);
            let id = (!every(options.without_case_id_every, number))
                .then(|| self.case_id(number, ordinal));
            fresh.push(Arc::new(Case::new(self.seed, number, customer, id, date)));
        }
        add(&mut lists, fresh);
        lists
    }

    fn case_id(&self, number: u64, ordinal: u64) -> String {
        match self.case_ids {
            CaseIds::Global => format!("CASE-{number:07}"),
            CaseIds::PerCustomer => format!("CASE-{ordinal:07}"),
        }
    }

    /// Chooses a customer at random by the shares.
    fn draw(&self, dice: &mut Dice) -> usize {
        let at = dice.unit() * self.shares.last().copied().unwrap_or(0.0);
        self.shares.partition_point(|sum| *sum <= at)
    }

    /// Returns all customers, in the vendor's order.
    pub(super) fn customers(&self) -> &[Customer] {
        &self.customers
    }

    /// Returns the number of cases of the customer at `index` now.
    pub(super) fn case_count(&self, index: usize) -> usize {
        self.lists
            .read()
            .by_customer
            .get(index)
            .map_or(0, |list| list.len())
    }

    fn customer_index(&self, id: &str) -> Option<usize> {
        let index = id
            .strip_prefix("org_")?
            .parse::<usize>()
            .ok()?
            .checked_sub(1)?;
        // `org_01` and `org_+1` parse, but are not ids of customers.
        (self.customers.get(index)?.id == id).then_some(index)
    }

    /// Returns the rows that `filter` finds now. An unknown customer has none.
    pub(super) fn select(&self, filter: &Filter) -> Selection {
        let lists = self.lists.read();
        let (list, customer) = match &filter.customer_id {
            None => (Arc::clone(&lists.all), None),
            Some(id) => match self.customer_index(id) {
                None => return Selection::default(),
                Some(index) => (
                    lists.by_customer.get(index).cloned().unwrap_or_default(),
                    Some(index),
                ),
            },
        };
        drop(lists);
        let (start, end) = match filter.range {
            None => (0, list.len()),
            Some((first, last)) => {
                let start = list.partition_point(|case| case.date > last);
                let end = list.partition_point(|case| case.date >= first);
                (start, end.max(start))
            }
        };
        if filter.case_type.is_none() && filter.status.is_none() {
            return Selection {
                list,
                start,
                end,
                customer,
            };
        }
        let wanted = |want: &Option<String>, is: &str| want.as_ref().is_none_or(|want| want == is);
        let kept: Vec<Arc<Case>> = list
            .get(start..end)
            .unwrap_or_default()
            .iter()
            .filter(|case| {
                wanted(&filter.case_type, case.case_type) && wanted(&filter.status, case.status)
            })
            .cloned()
            .collect();
        let end = kept.len();
        Selection {
            list: Arc::new(kept),
            start: 0,
            end,
            customer,
        }
    }

    /// Returns the text of `case`: always the same bytes.
    pub(super) fn text<'a>(&self, case: &'a Case) -> &'a str {
        case.text.get_or_init(|| {
            let customer = case.customer.and_then(|index| self.customers.get(index));
            let facts = CaseFacts {
                number: case.number,
                id: case.id.as_deref(),
                customer: customer.map(|customer| (customer.id.as_str(), customer.name.as_str())),
                case_type: case.case_type,
                status: case.status,
                date: case.date,
            };
            case_text(self.seed, facts).into_boxed_str()
        })
    }

    /// Adds `count` new cases. Returns how many there was room for, or `None` if the customer is
    /// unknown. Without a customer they are spread by the shares. Without a date they are of today.
    pub(super) fn insert(
        &self,
        count: usize,
        customer_id: Option<&str>,
        date: Option<Date>,
    ) -> Option<usize> {
        let fixed = match customer_id {
            None => None,
            Some(id) => Some(self.customer_index(id)?),
        };
        let mut lists = self.lists.write();
        let count = count.min(room(lists.all.len()));
        let mut dice = Dice::new(self.seed, Domain::Inserts, lists.next_number);
        let mut ahead: std::collections::HashMap<usize, u64> = std::collections::HashMap::new();
        let mut fresh = Vec::with_capacity(count);
        for _ in 0..count {
            let number = lists.next_number;
            lists.next_number += 1;
            let customer = fixed.unwrap_or_else(|| self.draw(&mut dice));
            let before = lists.by_customer.get(customer).map_or(0, |list| list.len()) as u64;
            let place = ahead.entry(customer).or_insert(before);
            *place += 1;
            let id = self.case_id(number, *place);
            fresh.push(Arc::new(Case::new(
                self.seed,
                number,
                Some(customer),
                Some(id),
                date.unwrap_or(self.today),
            )));
        }
        add(&mut lists, fresh);
        Some(count)
    }

    /// Changes, removes and moves this many cases, chosen at random. A changed case has another
    /// status. A moved one has the same text at another place among those of its day.
    pub(super) fn alter(&self, changed: usize, removed: usize, moved: usize) {
        let mut lists = self.lists.write();
        let salt = lists.next_number;
        lists.next_number += 1;
        let mut dice = Dice::new(self.seed, Domain::Alterations, salt);
        let mut all: Vec<Arc<Case>> = lists.all.to_vec();
        let draw = |dice: &mut Dice, all: &[Arc<Case>]| {
            let at = usize::try_from(dice.below(all.len().max(1) as u64)).unwrap_or(0);
            (at < all.len()).then_some(at)
        };
        for _ in 0..changed {
            let Some(case) = draw(&mut dice, &all).and_then(|at| all.get_mut(at)) else {
                break;
            };
            let others: Vec<_> = STATUSES.iter().filter(|s| **s != case.status).collect();
            let at = usize::try_from(dice.below(others.len() as u64)).unwrap_or(0);
            let status = others.get(at).copied().copied().unwrap_or(case.status);
            *case = Arc::new(Case {
                status,
                ..case.again()
            });
        }
        for _ in 0..moved {
            let Some(case) = draw(&mut dice, &all).and_then(|at| all.get_mut(at)) else {
                break;
            };
            let text: Box<str> = self.text(case).into();
            *case = Arc::new(Case {
                rank: dice.next(),
                text: OnceLock::from(text),
                ..case.again()
            });
        }
        for _ in 0..removed {
            if let Some(at) = draw(&mut dice, &all) {
                all.swap_remove(at);
            }
        }
        lists.all = List::default();
        lists.by_customer = vec![List::default(); self.customers.len()];
        add(&mut lists, all);
    }

    /// Undoes all insertions and alterations.
    pub(super) fn reset(&self) {
        *self.lists.write() = self.made.clone();
    }
}

/// Returns how many more cases there is room for.
fn room(cases: usize) -> usize {
    CASES_MAX.saturating_sub(cases)
}

/// Inserts `fresh` at their places. Open scrolls keep the lists that they have.
fn add(lists: &mut Lists, fresh: Vec<Arc<Case>>) {
    let mut touched: Vec<usize> = Vec::new();
    for case in &fresh {
        if let Some((index, list)) = case
            .customer
            .and_then(|index| Some((index, lists.by_customer.get_mut(index)?)))
        {
            Arc::make_mut(list).push(Arc::clone(case));
            touched.push(index);
        }
    }
    touched.sort_unstable();
    touched.dedup();
    for index in touched {
        if let Some(list) = lists.by_customer.get_mut(index) {
            Arc::make_mut(list).sort_by_key(|case| case.place());
        }
    }
    let all = Arc::make_mut(&mut lists.all);
    all.extend(fresh);
    all.sort_by_key(|case| case.place());
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
