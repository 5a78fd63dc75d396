//! Tests slicing, growing and comparing rows against the obvious way of doing each.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::domain::{Audience, CustomerId};
use crate::snapshot::view::{View, ViewIndex};

/// Makes a vendor page of these rows.
fn page(rows: &[String]) -> RawRows {
    let mut text = String::new();
    let mut ends = Vec::new();
    for row in rows {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(row);
        ends.push(text.len() as u32);
    }
    RawRows {
        text: Bytes::from(text),
        ends,
        places: Vec::new(),
    }
}

/// Makes rows that arrived in pages of these sizes.
fn paged(rows: &[String], sizes: &[usize]) -> Rows {
    let mut out = Rows::default();
    let (mut at, mut sizes) = (0, sizes.iter().cycle());
    while at < rows.len() {
        let size = (*sizes.next().unwrap()).clamp(1, rows.len() - at);
        assert_eq!(out.append(page(&rows[at..at + size]), |_| true), 0);
        at += size;
    }
    out
}

fn texts(rows: &Rows) -> Vec<String> {
    (0..rows.len())
        .map(|row| String::from_utf8(rows.text(row).to_vec()).unwrap())
        .collect()
}

fn row(id: usize, status: u8) -> String {
    let customer = id % 3;
    format!(
        "{{\"case_id\":{id},\"customer_id\":\"c{customer}\",\"status\":{status},\"x\":\"a,b\"}}"
    )
}

prop_compose! {
    fn list()(statuses in proptest::collection::vec(0..3_u8, 0..60)) -> Vec<String> {
        statuses.into_iter().enumerate().map(|(id, status)| row(id, status)).collect()
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1..9_usize, 1..4)
}

proptest! {
    #[test]
    fn any_slice_is_the_rows_joined(rows in list(), sizes in sizes(), a in 0..70_usize, b in 0..70_usize) {
        let made = paged(&rows, &sizes);
        prop_assert_eq!(made.len(), rows.len());
        let (first, last) = (a.min(b), a.max(b));
        let pieces = made.cut(first..last);
        let joined: Vec<_> = pieces.iter().map(|p| String::from_utf8(p.to_vec()).unwrap()).collect();
        let there = rows.get(first..last.min(rows.len())).unwrap_or_default();
        prop_assert_eq!(joined.join(","), there.join(","));
        prop_assert!(made.text(rows.len()).is_empty());
        prop_assert_eq!(texts(&made), rows);
    }

    #[test]
    fn a_cut_list_that_takes_the_tail_of_another_is_that_list(
        rows in list(), a in sizes(), b in sizes(), keep in 0..70_usize,
    ) {
        let (mut mine, other) = (paged(&rows, &a), paged(&rows, &b));
        let keep = keep.min(rows.len());
        mine.truncate(keep);
        prop_assert_eq!(texts(&mine), &rows[..keep]);
        mine.take_from(other.clone(), keep);
        prop_assert_eq!(texts(&mine), rows.clone());
        // Every column moved with its row.
        let mut columns = Vec::new();
        mine.for_each_from(0, |at, customer, _| {
            columns.push((at, mine.customers.text(customer).unwrap().to_owned()));
        });
        let expected: Vec<_> = (0..rows.len()).map(|id| (id, format!("c{}", id % 3))).collect();
        prop_assert_eq!(columns, expected);
        prop_assert_eq!(mine.first_difference(&other, 0..rows.len(), By::Text), None);
    }

    #[test]
    fn the_first_difference_is_the_first(
        rows in list(), a in sizes(), b in sizes(), changed in 0..60_usize, by_text in any::<bool>(),
    ) {
        let mut other = rows.clone();
        if let Some(row_text) = other.get_mut(changed) {
            *row_text = if by_text { row(changed, 9) } else { row(changed + 1000, 0) };
        }
        let (mine, other_rows) = (paged(&rows, &a), paged(&other, &b));
        let expected = (changed < rows.len()).then_some(changed);
        prop_assert_eq!(mine.first_difference(&other_rows, 0..rows.len(), By::Text), expected);
        let by_ids = if by_text { None } else { expected };
        prop_assert_eq!(mine.first_difference(&other_rows, 0..rows.len(), By::Ids), by_ids);
        // Rows beyond the end of both lists count as different.
        let upto = rows.len() + 1;
        prop_assert_eq!(mine.first_difference(&mine, 0..upto, By::Ids), Some(rows.len()));
        // A shorter list differs at its end.
        if changed < rows.len() {
            let short = paged(&rows[..changed], &b);
            prop_assert_eq!(mine.first_difference(&short, 0..rows.len(), By::Ids), expected);
        }
    }

    #[test]
    fn rows_that_are_not_new_are_left_out(rows in list(), repeats in proptest::collection::vec(0..60_usize, 0..20)) {
        let mut sent = rows.clone();
        for at in repeats {
            if let Some(again) = rows.get(at) {
                sent.push(again.clone());
            }
        }
        let mut seen = std::collections::HashSet::new();
        let mut made = Rows::default();
        let left_out = made.append(page(&sent), |id| seen.insert(id));
        prop_assert_eq!(left_out, sent.len() - rows.len());
        prop_assert_eq!(texts(&made), rows);
    }

    #[test]
    fn a_view_is_the_filter_whenever_it_looks(
        rows in list(), sizes in sizes(), looks in proptest::collection::vec(0..60_usize, 0..4), cut in 0..70_usize,
        named in proptest::option::of(0..4_usize), seen in proptest::collection::vec(0..4_usize, 0..3),
    ) {
        let id = |n: &usize| CustomerId::parse(&format!("c{n}")).unwrap();
        let audience = if seen.is_empty() { Audience::All } else { Audience::only(seen.iter().map(id)) };
        let view = View::new(named.as_ref().map(id), audience);
        let mut index = ViewIndex::default();
        for upto in looks {
            let upto = upto.min(rows.len());
            index.extend(&view, &paged(&rows[..upto], &sizes), upto);
            // After a new search, rows that no reader saw are replaced.
            index.truncate(upto.min(rows.len()).min(cut));
        }
        let made = paged(&rows, &sizes);
        index.extend(&view, &made, made.len());
        let shown = |at: &usize| {
            let of = at % 3;
            named.is_none_or(|named| named == of) && (seen.is_empty() || seen.contains(&of))
        };
        let expected: Vec<u32> = (0..rows.len()).filter(shown).map(|at| at as u32).collect();
        prop_assert_eq!(index.rows(), &expected[..]);
    }
}

#[test]
fn words_keep_their_numbers_however_many_there_are() {
    let mut words = Words::default();
    let text = |n: u32| match n % 7 {
        3 => format!("ö{n}"),
        _ => n.to_string(),
    };
    for upto in 0..100 {
        for n in 0..=upto {
            assert_eq!(words.number(Some(&text(n))), n, "{upto}");
        }
    }
    assert_eq!(words.number(Some("")), 100);
    assert_eq!(words.number(Some("")), 100);
    assert_eq!((words.number(None), words.len()), (NO_WORD, 101));
    let other = words.clone();
    assert!((0..100).all(|n| other.text(n) == Some(&text(n))));
    assert_eq!(
        (other.text(100), other.text(101), other.text(NO_WORD)),
        (Some(""), None, None)
    );
}

#[test]
fn what_rows_cost_is_what_they_take() {
    let rows: Vec<String> = (0..10).map(|id| row(id, 0)).collect();
    let made = paged(&rows, &[4, 3]);
    let taken = |chunk: &Arc<Chunk>| {
        let columns = size_of_val(&*chunk.ends)
            + size_of_val(&*chunk.ids)
            + size_of_val(&*chunk.customers)
            + size_of_val(&*chunk.types);
        (chunk.text.len() + columns) as u64
    };
    assert_eq!(made.chunks.len(), 3);
    assert_eq!(made.bytes(), made.chunks.iter().map(taken).sum::<u64>());
    let mut made = made;
    made.truncate(5);
    assert_eq!(made.bytes(), made.chunks.iter().map(taken).sum::<u64>());
    made.truncate(0);
    assert_eq!((made.bytes(), made.len()), (0, 0));
}

#[test]
fn an_equal_last_page_is_held_once() {
    let rows: Vec<String> = (0..4).map(|id| row(id, 0)).collect();
    let other = paged(&rows, &[2]);
    let is_shared = |mine: &Rows| {
        let mut mine = mine.clone();
        mine.share_last(&other);
        let pairs = mine.chunks.iter().zip(&other.chunks);
        pairs
            .map(|(mine, other)| Arc::ptr_eq(mine, other))
            .collect()
    };
    let shared = |rows: &[String], sizes: &[usize]| -> Vec<bool> { is_shared(&paged(rows, sizes)) };
    assert_eq!(shared(&rows, &[2]), [false, true]);
    assert_eq!(shared(&rows[..2], &[2]), [true]);
    // Different rows, or the same rows at another place.
    let mut changed = rows.clone();
    changed[3] = row(3, 1);
    assert_eq!(shared(&changed, &[2]), [false, false]);
    let mut moved = rows.clone();
    moved.insert(0, row(9, 0));
    assert_eq!(shared(&moved, &[3, 2]), [false, false]);
    assert_eq!(shared(&[], &[2]), [false; 0]);
    // The same texts with other word numbers, because other rows came before.
    let swapped = [row(4, 0), row(5, 0), row(2, 0), row(3, 0)];
    assert_eq!(shared(&swapped, &[2]), [false, false]);
}

#[test]
fn whoever_knows_the_words_of_rows_finds_them_in_rows_taken_over() {
    let (one, two, three) = (row(0, 0), row(1, 0), row(2, 0));
    let view = View::new(CustomerId::parse("c1").ok(), Audience::All);
    let (mut index, mut rows) = (ViewIndex::default(), paged(&[one, two.clone()], &[2]));
    index.extend(&view, &rows, rows.len());
    assert_eq!(index.rows(), [1]);
    // A new search brought other rows, in which c1 has another number.
    rows.truncate(0);
    index.truncate(0);
    rows.take_from(paged(&[two, three], &[2]), 0);
    index.extend(&view, &rows, rows.len());
    assert_eq!(index.rows(), [0]);
}

#[test]
fn rows_are_taken_over_behind_those_there_are() {
    let bare = |id: usize| format!("{{\"case_id\":{id}}}");
    let all: Vec<String> = (0..5).map(bare).collect();
    let mut rows = paged(&all[..2], &[1]);
    rows.take_from(paged(&all[2..], &[2]), 0);
    assert_eq!(texts(&rows), all);
    let mut last = Rows::default();
    last.take_from(rows.clone(), 3);
    assert_eq!(texts(&last), all[3..]);
    let mut columns = Vec::new();
    rows.for_each_from(3, |at, customer, case_type| {
        columns.push((at, customer, case_type))
    });
    assert_eq!(columns, [(3, NO_WORD, NO_WORD), (4, NO_WORD, NO_WORD)]);
}

#[test]
fn equal_pages_at_other_places_are_not_the_same_rows() {
    let (one, two, other) = (row(0, 0), row(1, 0), row(2, 0));
    let here = paged(&[one.clone(), two.clone()], &[2]);
    let later = paged(&[other, one, two], &[1, 2]);
    for by in [By::Ids, By::Text] {
        assert_eq!(here.first_difference(&later, 1..2, by), Some(1));
        assert_eq!(later.first_difference(&here, 1..2, by), Some(1));
    }
}
