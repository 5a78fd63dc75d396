//! Tests that scrolls behave like the real ones.

use std::collections::HashSet;

use super::super::world::{Filter, World};
use super::*;

const NONE: Twists = Twists {
    empty: false,
    repeat: false,
    endless: false,
    duplicate: false,
    short: false,
    oversize: false,
};

struct Kit {
    world: World,
    scrolls: Scrolls,
    now: Instant,
}

impl Kit {
    fn new(cases: usize, options: Options) -> Self {
        let options = Options {
            customers: 3,
            cases,
            ..options
        };
        Self {
            world: World::new(&options),
            scrolls: Scrolls::new(&options),
            now: Instant::now(),
        }
    }

    fn open(&self, size: usize) -> Page {
        self.scrolls
            .open(self.world.select(&Filter::default()), size, self.now, NONE)
            .unwrap()
    }

    fn next(&self, id: &str, twists: Twists) -> Page {
        self.scrolls
            .next(id, self.now, Duration::ZERO, twists)
            .unwrap()
    }

    fn texts(&self, page: &Page) -> Vec<String> {
        page.rows()
            .iter()
            .map(|row| self.world.text(row).to_owned())
            .collect()
    }

    fn all(&self) -> Vec<String> {
        let all = self.world.select(&Filter::default());
        all.rows(0, all.len())
            .iter()
            .map(|row| self.world.text(row).to_owned())
            .collect()
    }

    fn counts(&self) -> SimScrollCounts {
        self.scrolls.counts(self.now).0
    }
}

fn with_end(end_of_scroll: EndOfScroll) -> Options {
    Options {
        end_of_scroll,
        ..Options::default()
    }
}

/// Returns the sizes of a scroll's pages, and whether each had an id.
fn shape(cases: usize, size: usize, end: EndOfScroll) -> Vec<(usize, bool)> {
    let kit = Kit::new(cases, with_end(end));
    let mut page = kit.open(size);
    let mut shape = vec![(page.rows().len(), page.cursor.is_some())];
    let mut seen = kit.texts(&page);
    while let Some(id) = page.cursor.clone() {
        if shape.len() > 1 && page.rows().is_empty() {
            break;
        }
        drop(page);
        page = kit.next(&id, NONE);
        seen.extend(kit.texts(&page));
        shape.push((page.rows().len(), page.cursor.is_some()));
    }
    assert_eq!(seen, kit.all());
    let counts = kit.counts();
    assert_eq!((counts.open, counts.opened, counts.ended), (0, 1, 1));
    shape
}

#[test]
fn the_four_ends() {
    use EndOfScroll::{EmptyCursor, EmptyNull, Full, Short};
    assert_eq!(shape(10, 4, Short), [(4, true), (4, true), (2, false)]);
    assert_eq!(shape(8, 4, Short), [(4, true), (4, true), (0, false)]);
    assert_eq!(shape(10, 4, Full), [(4, true), (4, true), (2, false)]);
    assert_eq!(shape(8, 4, Full), [(4, true), (4, false)]);
    assert_eq!(
        shape(10, 4, EmptyNull),
        [(4, true), (4, true), (2, true), (0, false)]
    );
    assert_eq!(shape(8, 4, EmptyNull), [(4, true), (4, true), (0, false)]);
    assert_eq!(shape(8, 4, EmptyCursor), [(4, true), (4, true), (0, true)]);
    assert_eq!(shape(0, 4, Short), [(0, false)]);
    assert_eq!(shape(0, 4, EmptyNull), [(0, false)]);
}

#[test]
fn the_id_is_long_constant_and_its_own() {
    let kit = Kit::new(20, Options::default());
    let first = kit.open(5).cursor.unwrap();
    let second = kit.open(5).cursor.unwrap();
    assert!(first.starts_with("FGluY2x1ZGVfY29u"));
    assert_eq!(first.len(), 1_000);
    assert_ne!(first, second);
    assert_eq!(kit.next(&first, NONE).cursor.unwrap(), first);
    // The same id again gives the next page of the same scroll.
    assert_eq!(kit.texts(&kit.next(&first, NONE)), kit.all()[10..15]);
    assert_eq!(kit.texts(&kit.next(&second, NONE)), kit.all()[5..10]);
}

#[test]
fn ended_and_unknown_ids_are_gone() {
    let kit = Kit::new(6, Options::default());
    let id = kit.open(5).cursor.unwrap();
    assert!(kit.next(&id, NONE).cursor.is_none());
    assert!(
        kit.scrolls
            .next(&id, kit.now, Duration::ZERO, NONE)
            .is_none()
    );
    assert!(
        kit.scrolls
            .next("x", kit.now, Duration::ZERO, NONE)
            .is_none()
    );
    // With the silent end, the id keeps answering without rows and without holding a context.
    let kit = Kit::new(6, with_end(EndOfScroll::EmptyCursor));
    let id = kit.open(5).cursor.unwrap();
    for rows in [1, 0, 0, 0] {
        assert_eq!(kit.next(&id, NONE).rows().len(), rows);
    }
    assert_eq!((kit.counts().open, kit.counts().ended), (0, 1));
}

#[test]
fn idle_scrolls_expire_and_use_renews_them() {
    let mut kit = Kit::new(100, Options::default());
    let (used, idle) = (kit.open(5).cursor.unwrap(), kit.open(5).cursor.unwrap());
    for _ in 0..4 {
        kit.now += Duration::from_secs(200);
        assert_eq!(kit.next(&used, NONE).rows().len(), 5);
    }
    assert!(
        kit.scrolls
            .next(&idle, kit.now, Duration::ZERO, NONE)
            .is_none()
    );
    assert_eq!((kit.counts().open, kit.counts().expired), (1, 1));
    kit.now += Duration::from_secs(300);
    assert_eq!((kit.counts().open, kit.counts().expired), (0, 2));
}

#[test]
fn no_scroll_outlives_a_day() {
    let mut kit = Kit::new(5_000, Options::default());
    let id = kit.open(5).cursor.unwrap();
    for _ in 0..(24 * 60 / 4 - 1) {
        kit.now += Duration::from_secs(240);
        assert_eq!(kit.next(&id, NONE).rows().len(), 5);
    }
    kit.now += Duration::from_secs(240);
    assert!(
        kit.scrolls
            .next(&id, kit.now, Duration::ZERO, NONE)
            .is_none()
    );
}

#[test]
fn contexts_are_limited_until_one_is_free() {
    let mut kit = Kit::new(
        10,
        Options {
            open_scrolls_max: 2,
            ..Options::default()
        },
    );
    let first = kit.open(4).cursor.unwrap();
    let _second = kit.open(4);
    let select = || kit.world.select(&Filter::default());
    assert!(kit.scrolls.open(select(), 4, kit.now, NONE).is_none());
    while kit.next(&first, NONE).cursor.is_some() {}
    assert!(kit.scrolls.open(select(), 4, kit.now, NONE).is_some());
    assert!(kit.scrolls.open(select(), 4, kit.now, NONE).is_none());
    kit.now += Duration::from_secs(300);
    assert!(
        kit.scrolls
            .open(kit.world.select(&Filter::default()), 4, kit.now, NONE)
            .is_some()
    );
    assert_eq!(kit.counts().peak_open, 2);
}

#[test]
fn two_continuations_at_once_spoil_both() {
    let kit = Kit::new(40, Options::default());
    let id = kit.open(5).cursor.unwrap();
    let held = kit.next(&id, NONE);
    let good = kit.texts(&held);
    assert_eq!(good, kit.all()[5..10]);
    let other = kit.texts(&kit.next(&id, NONE));
    let spoiled = kit.texts(&held);
    assert_ne!(spoiled, good);
    assert!(
        spoiled.iter().collect::<HashSet<_>>().len() < spoiled.len(),
        "none comes twice"
    );
    assert_ne!(other, kit.all()[10..15]);
    drop(held);
    assert_eq!(kit.scrolls.counts(kit.now).1, 1);
    // Some rows are skipped for good, and others repeated.
    let mut rest = Vec::new();
    loop {
        let page = kit.next(&id, NONE);
        rest.extend(kit.texts(&page));
        if page.cursor.is_none() {
            break;
        }
    }
    let seen: HashSet<_> = other.iter().chain(&rest).collect();
    assert!(kit.all()[10..].iter().any(|row| !seen.contains(row)));
    assert!(other.iter().any(|row| rest.contains(row)));
    assert_eq!(kit.scrolls.counts(kit.now).1, 1);
}

#[test]
fn a_reader_that_left_does_not_end_the_vendors_work() {
    let mut kit = Kit::new(40, Options::default());
    let id = kit.open(5).cursor.unwrap();
    let slow = Duration::from_secs(15);
    drop(kit.scrolls.next(&id, kit.now, slow, NONE).unwrap());
    kit.now += Duration::from_secs(10);
    drop(kit.next(&id, NONE));
    assert_eq!(kit.scrolls.counts(kit.now).1, 1);
    kit.now += slow;
    drop(kit.next(&id, NONE));
    assert_eq!(kit.scrolls.counts(kit.now).1, 1);
}

#[test]
fn faults_of_a_page() {
    let kit = Kit::new(40, Options::default());
    let all = kit.all();
    let id = kit.open(10).cursor.unwrap();
    let page = |twists| {
        let page = kit.next(&id, twists);
        assert!(page.cursor.is_some());
        kit.texts(&page)
    };
    assert!(
        page(Twists {
            empty: true,
            ..NONE
        })
        .is_empty()
    );
    assert_eq!(
        page(Twists {
            repeat: true,
            ..NONE
        }),
        all[..10]
    );
    assert_eq!(
        page(Twists {
            short: true,
            ..NONE
        }),
        all[10..15]
    );
    let double = page(Twists {
        duplicate: true,
        ..NONE
    });
    assert_eq!(double[..9], all[15..24]);
    assert_eq!(double[9], all[15]);
    assert_eq!(
        page(Twists {
            repeat: true,
            ..NONE
        }),
        all[15..24]
    );
    // Sixteen rows are left: fewer than the twenty requested, but more than a page.
    assert_eq!(
        page(Twists {
            oversize: true,
            ..NONE
        }),
        all[24..]
    );
    let mut invented = HashSet::new();
    for _ in 0..20 {
        let rows = page(Twists {
            endless: true,
            ..NONE
        });
        assert_eq!(rows.len(), 10);
        invented.extend(rows);
    }
    assert_eq!(invented.len(), 200);
    assert!(all.iter().all(|row| !invented.contains(row)));
}

#[test]
fn scrolls_end_by_order_and_are_forgotten_by_reset() {
    let kit = Kit::new(40, Options::default());
    let (first, second) = (kit.open(5).cursor.unwrap(), kit.open(5).cursor.unwrap());
    kit.scrolls.expire_one(&first);
    kit.scrolls.expire_one(&first);
    assert_eq!(kit.scrolls.expire_all(kit.now), 1);
    assert!(
        kit.scrolls
            .next(&second, kit.now, Duration::ZERO, NONE)
            .is_none()
    );
    assert_eq!((kit.counts().open, kit.counts().expired), (0, 2));
    kit.scrolls.reset();
    assert_eq!(kit.counts(), SimScrollCounts::default());
    assert_ne!(kit.open(5).cursor.unwrap(), first);
}
