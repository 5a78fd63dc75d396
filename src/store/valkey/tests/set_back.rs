//! A server whose clock is set back.

use super::*;
use crate::store::purse::PurseVerdict;
use crate::store::usage::CallerUse;

/// Each deadline ends within its own length after the server's clock was set back, and what is of
/// the future stops nobody.
#[tokio::test]
async fn a_clock_that_is_set_back_costs_one_length_at_most() {
    use FleetReply as R;
    let server = TestServer::start(ServerKind::Valkey, &[]);
    let engine = engine_over(options(access(server.port)), Scripts::with_given_time());
    until(&engine, EngineState::Ok).await;
    // The sums of callers are those of a minute. No minute ends within the seconds of a case.
    let before = epoch();
    let into_minute = Duration::from_millis(before.since_boot_ms() % 60_000);
    let before = before.earlier(into_minute);
    let back = before.earlier(Duration::from_secs(1_800));
    let seconds = Duration::from_secs;
    let [one, two] = [1, 2].map(|n| ClaimId([n; 16]));
    let lease = seconds(6);
    let claim = |line, claim| FleetOp::Claim { line, claim, lease };
    let board = |name, claim, have| FleetOp::Board {
        name,
        claim,
        lease,
        have,
    };
    let want = |line, rows, left| FleetOp::Want {
        line,
        want: LineWant {
            rows,
            left,
            turn: rows > 0,
            ..LineWant::default()
        },
    };
    let land = |name, claim, born| FleetOp::Land {
        name,
        claim,
        record: Bytes::from_static(b"record"),
        negative: false,
        born,
    };
    let take = |account, call, places| FleetOp::Take {
        account,
        call,
        wish: PurseTake {
            cost_us: 1_000_000,
            burst_us: 5_000_000,
            needed_us: 1_000_000,
            places,
            place_len: seconds(10),
            owed_us: 0,
        },
    };
    let stop = |account| FleetOp::Word {
        account,
        word: PurseWord {
            cost_us: 1_000_000,
            burst_us: 5_000_000,
            stop: Some(seconds(300)),
            refuses: true,
            ..PurseWord::default()
        },
    };
    let used = |number, count| FleetOp::Use {
        replica: [1; 16],
        batch: UseBatch {
            number,
            callers: vec![(name(20), count)],
        },
    };
    let beat = |replica| FleetOp::Beat {
        replica: [replica; 16],
        applied: 0,
    };
    let line = |left| R::Line {
        current: None,
        left,
    };
    let renewed = |rows, left| {
        R::Renewed(LineWant {
            rows,
            left,
            turn: rows > 0,
            ..LineWant::default()
        })
    };
    let renew = |line| FleetOp::Renew {
        line,
        claim: one,
        lease,
    };
    let fail = |name, record| FleetOp::Fail {
        name,
        claim: one,
        record,
        hold: seconds(2),
    };
    let failure = Bytes::from_static(b"failure");
    let sum = |at: Stamp, count| {
        R::Used(vec![CallerUse {
            minute: at.since_boot_ms() / 60_000,
            count,
            before: 0,
        }])
    };
    let heard = |replicas| R::Beat {
        number: 0,
        replicas,
        applied: replicas,
    };
    // Before the jump, whatever is replied; then seconds after it, and the reply.
    type After = Vec<(u64, FleetOp, FleetReply)>;
    let cases: Vec<(&str, Vec<FleetOp>, After)> = vec![
        (
            "a claim on a line",
            vec![claim(name(1), one)],
            vec![
                (0, claim(name(1), two), R::Wait(lease)),
                (4, claim(name(1), two), R::Wait(seconds(2))),
                (6, claim(name(1), two), R::Lead),
            ],
        ),
        (
            "a claim that a follower looks at",
            vec![claim(name(2), one)],
            vec![
                (0, want(name(2), 0, seconds(0)), line(lease)),
                (4, want(name(2), 0, seconds(0)), line(seconds(2))),
                (6, want(name(2), 0, seconds(0)), line(seconds(0))),
            ],
        ),
        (
            "what readers want",
            vec![claim(name(3), one), want(name(3), 5, seconds(3))],
            vec![
                (0, renew(name(3)), renewed(5, seconds(3))),
                (2, renew(name(3)), renewed(5, seconds(1))),
                (3, renew(name(3)), renewed(0, seconds(0))),
            ],
        ),
        (
            "a claim on an answer",
            vec![board(name(4), one, None)],
            vec![
                (0, board(name(4), two, None), R::Wait(lease)),
                (4, board(name(4), two, None), R::Wait(seconds(2))),
                (6, board(name(4), two, None), R::Lead),
            ],
        ),
        (
            "a failure",
            vec![board(name(5), one, None), fail(name(5), failure.clone())],
            vec![
                (0, board(name(5), two, None), R::Failed(failure.clone())),
                (1, board(name(5), two, None), R::Failed(failure.clone())),
                (2, board(name(5), two, None), R::Lead),
            ],
        ),
        (
            "an answer",
            vec![board(name(6), one, None), land(name(6), one, before)],
            vec![
                (1, board(name(6), two, None), R::Lead),
                (1, land(name(6), two, back.later(seconds(1))), R::Kept),
                (
                    2,
                    board(name(6), one, Some(back)),
                    R::Answer(Some((
                        Bytes::from_static(b"record"),
                        back.later(seconds(1)),
                    ))),
                ),
            ],
        ),
        (
            "requests of a caller",
            vec![used(1, 5)],
            vec![
                (0, used(2, 3), sum(back, 3)),
                (1, used(3, 1), sum(back.later(seconds(1)), 4)),
            ],
        ),
        (
            "gateways",
            vec![beat(1), beat(2)],
            vec![(0, beat(1), heard(1)), (1, beat(2), heard(2))],
        ),
    ];
    for (what, first, then) in cases {
        for op in first {
            ask_at(&engine, &op, before).await.unwrap();
        }
        for (after, op, reply) in then {
            let now = back.later(seconds(after));
            let replied = ask_at(&engine, &op, now).await.unwrap();
            assert_eq!(replied, reply, "{what} after {after} s");
        }
    }
    // The purse: a place, credit, a hold-down and its probes.
    let verdict = async |op: FleetOp, at: Stamp| match ask_at(&engine, &op, at).await.unwrap() {
        R::Purse(reply) => reply.verdict,
        other => panic!("{other:?}"),
    };
    let purse = name(7);
    verdict(take(purse, one, 1), before).await;
    let full = before.later(seconds(2));
    assert_eq!(
        verdict(take(purse, one, 1), full).await,
        PurseVerdict::Taken
    );
    assert_eq!(
        verdict(take(purse, two, 1), back).await,
        PurseVerdict::Taken
    );
    let held = |left| PurseVerdict::Held {
        left: seconds(left),
        refuses: true,
    };
    let probe = |left| PurseVerdict::Probe {
        left: seconds(left),
        refuses: true,
    };
    let purse = name(8);
    ask_at(&engine, &stop(purse), before).await.unwrap();
    for (after, said) in [
        (0, held(300)),
        (59, held(241)),
        (60, probe(240)),
        (61, held(239)),
        // The probe cost a call.
        (301, PurseVerdict::Taken),
    ] {
        let at = back.later(seconds(after));
        assert_eq!(
            verdict(take(purse, one, 4), at).await,
            said,
            "after {after} s"
        );
    }
}
