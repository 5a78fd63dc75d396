//! Variants are made once, are shared, and are paid for.

use super::*;

const BOTH: [Coding; 2] = [Coding::Brotli, Coding::Gzip];

fn body(rows: usize) -> (Bytes, Etag) {
    let text: String = (0..rows).map(|n| format!("{{\"case\":{n}}},")).collect();
    let body = Bytes::from(text);
    (body.clone(), Etag::of(&body))
}

fn variants(bytes_max: u64) -> Arc<Variants> {
    Variants::new(
        bytes_max,
        VariantOptions::default(),
        Metrics::new().unwrap(),
    )
}

fn find(of: &Arc<Variants>, codings: &[Coding], body: &(Bytes, Etag)) -> Option<Variant> {
    of.find(codings.iter().copied(), &body.0, &body.1)
}

/// Until the worker has nothing to do. Gives way to it instead of sleeping.
async fn settled(variants: &Variants) {
    while variants.queue.lock().at_work {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_body_is_plain_until_its_variant_was_made() {
    let variants = variants(1 << 20);
    let body = body(1000);
    // Read once, it is not worth coding. The second reading starts it, and no caller waits for it.
    assert!(find(&variants, &BOTH, &body).is_none());
    settled(&variants).await;
    assert!(find(&variants, &BOTH, &body).is_none());
    settled(&variants).await;
    let made = find(&variants, &BOTH, &body).unwrap();
    assert_eq!(made.coding, Coding::Brotli);
    assert_eq!(made.body, Coding::Brotli.encode(&body.0).unwrap());
    assert_eq!(made.etag, body.1.of_form("br"));
    // No caller preferred gzip, so it was not made. br is ready for a caller that accepts it as a
    // second choice.
    let gzip_first = [Coding::Gzip, Coding::Brotli];
    let other = find(&variants, &gzip_first, &body).unwrap();
    assert_eq!(other.body, made.body);
    assert!(find(&variants, &[Coding::Zstd], &body).is_none());
    assert!(find(&variants, &[], &body).is_none());
    let told = variants.metrics.render().unwrap();
    assert!(
        told.contains("coded_variants_total{coding=\"br\",outcome=\"made\"} 1"),
        "{told}"
    );
}

#[tokio::test]
async fn another_body_never_gets_it() {
    let variants = variants(1 << 20);
    let one = body(1000);
    let other = body(1001);
    for _ in 0..2 {
        find(&variants, &BOTH, &one);
        settled(&variants).await;
    }
    assert!(find(&variants, &BOTH, &one).is_some());
    assert!(find(&variants, &BOTH, &other).is_none());
}

#[tokio::test]
async fn what_does_not_shrink_is_left_alone() {
    let variants = variants(1 << 20);
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(4096)
        .collect();
    let noise = Bytes::from(noise);
    let noise = (noise.clone(), Etag::of(&noise));
    for _ in 0..5 {
        assert!(find(&variants, &BOTH, &noise).is_none());
        settled(&variants).await;
    }
    let told = variants.metrics.render().unwrap();
    assert!(
        told.contains("coded_variants_total{coding=\"br\",outcome=\"not_smaller\"} 1"),
        "{told}"
    );
}

#[tokio::test]
async fn variants_weigh_what_they_hold_and_stay_within_their_bytes() {
    let all = variants(1 << 20);
    let body = body(1000);
    find(&all, &[Coding::Gzip], &body);
    assert_eq!(all.size(), (1, u64::from(ENTRY_OVERHEAD_BYTES / 2)));
    find(&all, &[Coding::Gzip], &body);
    settled(&all).await;
    let held = find(&all, &[Coding::Gzip], &body).unwrap().body.len() as u64;
    assert_eq!(all.size(), (1, held + u64::from(ENTRY_OVERHEAD_BYTES)));
    all.clear();
    assert_eq!(all.size(), (0, 0));

    let few = variants(16 << 10);
    for rows in 500..600 {
        let body = self::body(rows);
        for _ in 0..2 {
            find(&few, &[Coding::Gzip], &body);
        }
        settled(&few).await;
        assert!(few.size().1 <= 16 << 10);
    }
}

#[tokio::test]
async fn small_bodies_are_left_alone_and_all_of_them_if_told_so() {
    let variants = variants(1 << 20);
    let (small, large) = (body(10), body(1000));
    let asked = || find(&variants, &BOTH, &small).or_else(|| find(&variants, &BOTH, &large));
    for _ in 0..3 {
        assert!(find(&variants, &BOTH, &small).is_none());
    }
    assert_eq!(variants.size().0, 0);
    variants.configure(VariantOptions {
        enabled: false,
        bytes_min: 0,
    });
    for _ in 0..3 {
        assert!(asked().is_none());
    }
    assert_eq!(variants.size().0, 0);
    variants.configure(VariantOptions {
        enabled: true,
        bytes_min: 1,
    });
    for _ in 0..2 {
        find(&variants, &BOTH, &small);
        settled(&variants).await;
    }
    assert!(find(&variants, &BOTH, &small).is_some());
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let variants = variants(1 << 20);
    // As if the worker were busy with a large one.
    variants.queue.lock().at_work = true;
    let bodies: Vec<_> = (0..QUEUE_MAX + 2).map(|n| body(100 + n)).collect();
    for _ in 0..2 {
        for body in &bodies {
            find(&variants, &BOTH, body);
        }
    }
    assert_eq!(variants.queue.lock().jobs.len(), QUEUE_MAX);
    let told = variants.metrics.render().unwrap();
    assert!(
        told.contains("coded_variants_total{coding=\"br\",outcome=\"crowded\"} 2"),
        "{told}"
    );
    // A body that was turned away is encoded once there is room.
    variants.queue.lock().jobs.clear();
    let body = bodies.last().unwrap();
    find(&variants, &BOTH, body);
    assert_eq!(variants.queue.lock().jobs.len(), 1);
}
