//! Converts the values of a KV cache between two layouts. With flash attention a cache stores a row of numbers per token, without
//! it a row of tokens per number, and llama.cpp takes a sequence's state only from a context with its own layout.
//!
//! The bytes are those that `llama_kv_cache::state_write` writes for one cache and one stream: the cells, then the keys and
//! the values of each layer.

/// The layout of a cache's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// A row of numbers for each token.
    ByToken,
    /// A row of tokens for each number.
    ByNumber,
}

/// The bytes differ from the format of this version of llama.cpp, or come from a kind of cache that isn't supported here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state of a sequence isn't written as expected: {0}")]
pub(crate) struct Unreadable(&'static str);

/// Bytes of the head: magic, sequence, number of streams.
const HEAD_BYTES: usize = 12;
/// Bytes of a cell: its position, its number of sequences, its one sequence.
const CELL_BYTES: usize = 12;

/// The same state with its values in the layout `to`; unchanged if they have that layout already.
pub(crate) fn laid_out(state: Vec<u8>, to: Values) -> Result<Vec<u8>, Unreadable> {
    let mut read = Reader { bytes: &state };
    read.skip(HEAD_BYTES - 4)?;
    if read.number()? != 1 {
        return Err(Unreadable("more than one stream"));
    }
    let cells = read.number()? as usize;
    read.skip(cells * CELL_BYTES)?;
    let place = state.len() - read.bytes.len();
    let by_number = read.number()?;
    let from = match by_number {
        0 => Values::ByToken,
        1 => Values::ByNumber,
        _ => return Err(Unreadable("an unknown layout of values")),
    };
    if from == to {
        return Ok(state);
    }
    let layers = read.number()?;
    // Two u32 about the layout of keys and values, which nothing here changes.
    read.skip(8)?;
    for _ in 0..layers {
        read.skip(4)?;
        let row = read.long()?;
        read.skip(row.saturating_mul(cells))?;
    }
    let keys_end = state.len() - read.bytes.len();
    let mut out = Vec::with_capacity(state.len() + layers as usize * 4);
    out.extend_from_slice(&state[..keys_end]);
    out[place..place + 4].copy_from_slice(&(1 - by_number).to_ne_bytes());
    // Layers without values (MLA) aren't written.
    while !read.bytes.is_empty() {
        match from {
            Values::ByToken => by_number_from(&mut read, cells, &mut out)?,
            Values::ByNumber => by_token_from(&mut read, cells, &mut out)?,
        }
    }
    Ok(out)
}

fn by_number_from(
    read: &mut Reader<'_>,
    cells: usize,
    out: &mut Vec<u8>,
) -> Result<(), Unreadable> {
    let kind = read.number()?;
    let size = size(kind)?;
    let row = read.long()?;
    let values = read.take(row.saturating_mul(cells))?;
    let numbers = row / size;
    for number in [kind, small(size)?, small(numbers)?] {
        out.extend_from_slice(&number.to_ne_bytes());
    }
    transpose(values, cells, numbers, size, out);
    Ok(())
}

fn by_token_from(read: &mut Reader<'_>, cells: usize, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let kind = read.number()?;
    let size = size(kind)?;
    if read.number()? as usize != size {
        return Err(Unreadable("numbers of another size than their kind's"));
    }
    let numbers = read.number()? as usize;
    let values = read.take(numbers.saturating_mul(cells).saturating_mul(size))?;
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&((numbers * size) as u64).to_ne_bytes());
    transpose(values, numbers, cells, size, out);
    Ok(())
}

/// Appends the transpose of `rows` × `columns` numbers of `size` bytes.
fn transpose(values: &[u8], rows: usize, columns: usize, size: usize, out: &mut Vec<u8>) {
    if size == 2 {
        return transpose_of::<2>(values, rows, columns, out);
    }
    transpose_of::<4>(values, rows, columns, out);
}

/// Goes by squares that fit the processor's first-level cache, since the numbers of a column lie pages apart.
fn transpose_of<const SIZE: usize>(values: &[u8], rows: usize, columns: usize, out: &mut Vec<u8>) {
    const SIDE: usize = 32;
    let (values, _) = values.as_chunks::<SIZE>();
    let begin = out.len();
    out.resize(begin + rows * columns * SIZE, 0);
    let (to, _) = out[begin..].as_chunks_mut::<SIZE>();
    for left in (0..columns).step_by(SIDE) {
        for top in (0..rows).step_by(SIDE) {
            for column in left..columns.min(left + SIDE) {
                for row in top..rows.min(top + SIDE) {
                    to[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
}

/// Bytes of a number of a ggml type. Block formats are refused.
fn size(kind: u32) -> Result<usize, Unreadable> {
    match kind {
        llama_cpp_sys_2::GGML_TYPE_F32 => Ok(4),
        llama_cpp_sys_2::GGML_TYPE_F16 => Ok(2),
        _ => Err(Unreadable("values in blocks of numbers")),
    }
}

fn small(number: usize) -> Result<u32, Unreadable> {
    u32::try_from(number).map_err(|_| Unreadable("a row that is too long"))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(bytes)
            .ok_or(Unreadable("it ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Unreadable> {
        self.take(bytes).map(drop)
    }

    fn number(&mut self) -> Result<u32, Unreadable> {
        let bytes = self.take(4)?;
        Ok(u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
    }

    fn long(&mut self) -> Result<usize, Unreadable> {
        let bytes = self.take(8)?;
        let number = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        usize::try_from(number).map_err(|_| Unreadable("a row that is too long"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A state of this many cells, with keys of six bytes; every value of a layer is another number.
    fn state(cells: u32, layers: &[(u32, u32)], layout: Values) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        [7, 0, 1, cells]
            .iter()
            .for_each(|n: &u32| put(&n.to_ne_bytes()));
        for cell in 0..cells {
            [cell, 1, 0].iter().for_each(|n| put(&n.to_ne_bytes()));
        }
        let by_number = u32::from(layout == Values::ByNumber);
        [by_number, layers.len() as u32, 0, 0]
            .iter()
            .for_each(|n| put(&n.to_ne_bytes()));
        for _ in layers {
            put(&1u32.to_ne_bytes());
            put(&6u64.to_ne_bytes());
            (0..cells).for_each(|cell| put(&[cell as u8; 6]));
        }
        for &(kind, numbers) in layers {
            let size = size(kind).unwrap();
            put(&kind.to_ne_bytes());
            let value = |cell: u32, number: u32| (cell * 1_000 + number).to_ne_bytes();
            match layout {
                Values::ByToken => {
                    put(&(u64::from(numbers) * size as u64).to_ne_bytes());
                    for cell in 0..cells {
                        (0..numbers).for_each(|n| put(&value(cell, n)[..size]));
                    }
                }
                Values::ByNumber => {
                    [size as u32, numbers]
                        .iter()
                        .for_each(|n| put(&n.to_ne_bytes()));
                    for n in 0..numbers {
                        (0..cells).for_each(|cell| put(&value(cell, n)[..size]));
                    }
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn values_change_their_layout_and_nothing_else(
            cells in 0..70u32,
            layers in prop::collection::vec((0..2u32, 0..70u32), 0..3),
        ) {
            use Values::{ByNumber, ByToken};
            for (from, to) in [(ByToken, ByNumber), (ByNumber, ByToken), (ByToken, ByToken)] {
                let got = laid_out(state(cells, &layers, from), to);
                prop_assert_eq!(got, Ok(state(cells, &layers, to)));
            }
        }

        #[test]
        fn what_is_no_state_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..90), cut in 0..300usize) {
            let _ = laid_out(bytes, Values::ByNumber);
            let mut state = state(3, &[(1, 40)], Values::ByToken);
            let cut = cut.min(state.len() - 1);
            state.truncate(cut);
            // A state that ends behind its keys is complete: that of layers without values.
            let keys_end = 16 + 36 + 16 + 12 + 18;
            prop_assert_eq!(laid_out(state, Values::ByNumber).is_ok(), cut == keys_end);
        }
    }

    #[test]
    fn values_in_blocks_stay_as_they_are() {
        let mut state = state(1, &[(1, 32)], Values::ByToken);
        let kind = state.len() - 64 - 12;
        state[kind] = 8;
        assert_eq!(laid_out(state.clone(), Values::ByToken), Ok(state.clone()));
        assert!(laid_out(state, Values::ByNumber).is_err());
    }
}
