//! New inputs out of old ones: the same for the same number.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Longest input.
const MOST: usize = 4_096;

/// Pieces that parsers stumble over.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b"%",
    b"%00",
    b"%2e",
    b"%zz",
    b"&",
    b"=",
    b"&async=true",
    b"@",
    b":",
    b"//",
    b"[",
    b"]",
    b"\\",
    b"..",
    b"127.0.0.1",
    b"::1",
    b"0x7f",
    b"65536",
    b"-1",
    b"18446744073709551616",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n",
    b"Bearer ",
    b".",
    b"\xff\xfe",
    b"\xef\xbc\x91",
    b"eyJhbGciOiJub25lIn0",
];

/// Input number `case`: a seed, changed one to eight times.
pub fn grown(seeds: &[Vec<u8>], case: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(case);
    let mut input = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..=8) {
        change(&mut input, seeds, &mut rng);
    }
    input.truncate(MOST);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=input.len());
    match rng.random_range(0..7) {
        0 => input.insert(at, rng.random()),
        1 => input.truncate(at),
        2 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        3 if at < input.len() => drop(input.remove(at)),
        4 => {
            let other = &seeds[rng.random_range(0..seeds.len())];
            let from = rng.random_range(0..=other.len());
            input.splice(at..at, other[from..].iter().copied());
        }
        5 => {
            let end = rng.random_range(at..=input.len());
            let twice = input[at..end].to_vec();
            input.splice(at..at, twice);
        }
        _ => {
            let piece = PIECES[rng.random_range(0..PIECES.len())];
            input.splice(at..at, piece.iter().copied());
        }
    }
}
