//! The cipher under the page tokens against the vectors of Project Wycheproof: what is right is
//! opened, what is forged is not. The gateway uses no HMAC and no HKDF of its own; keys are derived
//! by BLAKE3.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use crate::promises::Taker;
use crate::promises::token::{claims, sealer};

/// Tokens whose every bit is flipped.
const TOKENS: u8 = 100;

#[test]
fn aes_256_gcm_siv_keeps_to_the_vectors() {
    let set = TestSet::load(TestName::AesGcmSiv).unwrap();
    let (mut right, mut forged) = (0, 0);
    // Page tokens are sealed with 256 bits.
    for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
        for test in &group.tests {
            let key = || LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &test.key).unwrap());
            let nonce = || Nonce::try_assume_unique_for_key(&test.nonce);
            let mut sealed = [&test.ct[..], &test.tag].concat();
            let opened = nonce()
                .ok()
                .and_then(|nonce| {
                    key()
                        .open_in_place(nonce, Aad::from(&test.aad[..]), &mut sealed)
                        .ok()
                })
                .map(|text| text.to_vec());
            match test.result {
                TestResult::Invalid => {
                    assert_eq!(opened, None, "{}: {}", test.tc_id, test.comment);
                    forged += 1;
                }
                TestResult::Valid | TestResult::Acceptable => {
                    assert_eq!(opened.as_deref(), Some(&test.pt[..]), "{}", test.tc_id);
                    let mut text = test.pt.to_vec();
                    let bound = Aad::from(&test.aad[..]);
                    key()
                        .seal_in_place_append_tag(nonce().unwrap(), bound, &mut text)
                        .unwrap();
                    assert_eq!(text, [&test.ct[..], &test.tag].concat(), "{}", test.tc_id);
                    right += 1;
                }
            }
        }
    }
    println!("vectors: {right} right, {forged} forged");
    assert!(right >= 60 && forged >= 10, "{right} {forged}");
}

#[test]
fn a_token_with_any_bit_flipped_does_not_open() {
    let sealer = sealer("a-sealing-key");
    let mut flipped = 0;
    for seed in 0..TOKENS {
        let bytes: Vec<u8> = (0..=255).map(|n: u8| n.wrapping_mul(seed) ^ seed).collect();
        let token = sealer.seal(&claims(&mut Taker(&bytes))).unwrap();
        let mut raw = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..raw.len() * 8 {
            raw[at / 8] ^= 1 << (at % 8);
            assert_eq!(
                sealer.open(&URL_SAFE_NO_PAD.encode(&raw)),
                None,
                "{token} {at}"
            );
            raw[at / 8] ^= 1 << (at % 8);
            flipped += 1;
        }
        for cut in 0..token.len() {
            assert_eq!(sealer.open(&token[..cut]), None, "{token} {cut}");
        }
        assert!(sealer.open(&URL_SAFE_NO_PAD.encode(&raw)).is_some());
    }
    println!("vectors: {flipped} flipped bits");
    assert!(flipped > 50_000, "{flipped}");
}
