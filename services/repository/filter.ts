/**
 * A blocked Bloom filter over id prefixes: one block of 512 bits a lookup, 7 bits a key, 10 bits of
 * memory a key: about 1.3 % of absent keys pass. (Putze, Sanders, Singler: Cache-, Hash- and
 * Space-Efficient Bloom Filters, 2007.) Ids are codes already, so their own bits are the hash values.
 */

const BLOCK_BYTES = 64;
const BITS_PER_KEY = 10;
const PROBES = 7;

/** Bytes of a filter for `keys` keys. */
export function filterBytes(keys: number): number {
  return Math.max(1, Math.ceil((keys * BITS_PER_KEY) / (BLOCK_BYTES * 8))) * BLOCK_BYTES;
}

/** Adds the prefix at `offset` of `ids` to the filter. */
export function addToFilter(filter: Uint8Array, ids: Buffer, offset: number): void {
  const block = blockOf(filter, ids, offset);
  for (let probe = 0; probe < PROBES; probe++) {
    const bit = bitOf(ids, offset, probe);
    filter[block + (bit >>> 3)]! |= 1 << (bit & 7);
  }
}

/** False only if the prefix was never added. */
export function filterMayHave(filter: Uint8Array, ids: Buffer, offset: number): boolean {
  const block = blockOf(filter, ids, offset);
  for (let probe = 0; probe < PROBES; probe++) {
    const bit = bitOf(ids, offset, probe);
    if ((filter[block + (bit >>> 3)]! & (1 << (bit & 7))) === 0) return false;
  }
  return true;
}

// The first 4 bytes order the index; the next 4 choose the block; 8 more give the 7 bits, 9 bits each.
function blockOf(filter: Uint8Array, ids: Buffer, offset: number): number {
  const blocks = filter.length / BLOCK_BYTES;
  return Math.floor((ids.readUInt32LE(offset + 4) / 2 ** 32) * blocks) * BLOCK_BYTES;
}

function bitOf(ids: Buffer, offset: number, probe: number): number {
  const at = probe * 9;
  const byte = offset + 8 + (at >>> 3);
  return ((ids[byte]! | (ids[byte + 1]! << 8)) >>> (at & 7)) & 511;
}
