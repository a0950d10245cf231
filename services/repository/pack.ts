import { HoldfastError } from '#contract/errors.ts';
import type { Random } from '#ports/random.ts';
import { ID_BYTES, PACK_MAX_BYTES, PACK_MAX_SLOTS } from './parameters.ts';
import { parseSealHeader, SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, type SealHeader } from './seal.ts';
import { sha256, sha256Into } from './sha256.ts';

const MAGIC = Buffer.from('HFPACK\x00\x01', 'latin1');
const TRAILER_MAGIC = Buffer.from('HFPKEND\x01', 'latin1');
/** magic 8, footer SHA-256 32, footer offset 4, footer length 4, trailer magic 8. */
export const PACK_TRAILER_BYTES = 48;
export const PACK_HEADER_BYTES = MAGIC.length;
/** offset 4, length 4, SHA-256 32, chunk header 40 (without its magic), child count 2. */
const SLOT_BYTES = 82;

/** Where one sealed chunk lies in a pack, and what it is; readable without keys. */
export interface PackSlot extends SealHeader {
  readonly offset: number;
  readonly length: number;
  /** SHA-256 of the sealed bytes. */
  readonly sha256: Buffer;
  /** Ids of the chunks that a `node` refers to, 32 bytes each. */
  readonly children: Buffer;
}

/** A sealed chunk on its way into a pack. */
export interface SealedChunk {
  readonly bytes: Uint8Array;
  /** SHA-256 of the sealed bytes. */
  readonly sha256: Uint8Array;
  readonly children: Uint8Array;
}

export interface AssembledPack {
  /** The pack's bytes, in order; views on the chunks handed in. */
  readonly parts: readonly Uint8Array[];
  readonly sizeBytes: number;
  readonly footerOffset: number;
  readonly footer: Buffer;
  /** Slot of each chunk, in the order in which the chunks were handed in. */
  readonly slotOf: Uint16Array;
}

/**
 * Lays out a pack. Chunks are put in random order, so that their places do not tell which lay side
 * by side on a disk.
 */
export function assemblePack(chunks: readonly SealedChunk[], random: Random): AssembledPack {
  if (chunks.length === 0 || chunks.length > PACK_MAX_SLOTS) throw new RangeError(`a pack of ${chunks.length} chunks`);
  const order = shuffledOrder(chunks.length, random);
  const slotOf = new Uint16Array(chunks.length);
  const parts: Uint8Array[] = [MAGIC];
  const childBytes = chunks.reduce((sum, chunk) => sum + chunk.children.length, 0);
  const footer = Buffer.alloc(4 + chunks.length * SLOT_BYTES + childBytes);
  footer.writeUInt32LE(chunks.length, 0);
  let offset = MAGIC.length;
  let at = 4;
  for (let slot = 0; slot < order.length; slot++) {
    const index = order[slot]!;
    const chunk = chunks[index]!;
    slotOf[index] = slot;
    parts.push(chunk.bytes);
    footer.writeUInt32LE(offset, at);
    footer.writeUInt32LE(chunk.bytes.length, at + 4);
    footer.set(chunk.sha256, at + 8);
    footer.set(chunk.bytes.subarray(4, SEAL_HEADER_BYTES), at + 40);
    footer.writeUInt16LE(chunk.children.length / ID_BYTES, at + 80);
    footer.set(chunk.children, at + SLOT_BYTES);
    at += SLOT_BYTES + chunk.children.length;
    offset += chunk.bytes.length;
  }
  const trailer = Buffer.alloc(PACK_TRAILER_BYTES);
  sha256Into(footer, trailer, 0);
  trailer.writeUInt32LE(offset, 32);
  trailer.writeUInt32LE(footer.length, 36);
  TRAILER_MAGIC.copy(trailer, 40);
  parts.push(footer, trailer);
  const sizeBytes = offset + footer.length + trailer.length;
  if (sizeBytes > PACK_MAX_BYTES) throw new RangeError(`a pack of ${sizeBytes} bytes`);
  return { parts, sizeBytes, footerOffset: offset, footer, slotOf };
}

function shuffledOrder(count: number, random: Random): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  const dice = Buffer.from(random.bytes(count * 4));
  for (let i = count - 1; i > 0; i--) {
    const j = dice.readUInt32LE(i * 4) % (i + 1);
    const swapped = order[i]!;
    order[i] = order[j]!;
    order[j] = swapped;
  }
  return order;
}

/** Throws `damaged` unless a pack's first {@link PACK_HEADER_BYTES} bytes are a pack's. Reading chunks does not need them. */
export function checkPackHeader(header: Uint8Array): void {
  if (!MAGIC.equals(header)) throw damagedPack('it does not begin as a pack');
}

/** Where a pack's footer lies, from the pack's last {@link PACK_TRAILER_BYTES} bytes; throws `damaged`. */
export function parsePackTrailer(
  trailer: Uint8Array,
  packBytes: number,
): { readonly offset: number; readonly length: number; readonly sha256: Buffer } {
  const buffer = Buffer.from(trailer);
  if (buffer.length !== PACK_TRAILER_BYTES || buffer.compare(TRAILER_MAGIC, 0, 8, 40, 48) !== 0)
    throw damagedPack('it does not end as a pack');
  const offset = buffer.readUInt32LE(32);
  const length = buffer.readUInt32LE(36);
  if (offset + length + PACK_TRAILER_BYTES !== packBytes) throw damagedPack('its footer does not fit its size');
  return { offset, length, sha256: buffer.subarray(0, 32) };
}

/** Parses a footer, checked against the hash in the trailer; throws `damaged`. */
export function parsePackFooter(footer: Uint8Array, footerOffset: number, expected: Uint8Array): PackSlot[] {
  const buffer = Buffer.from(footer.buffer, footer.byteOffset, footer.byteLength);
  if (!sha256(buffer).equals(expected)) throw damagedPack('its footer does not match its hash');
  return readSlots(buffer, footerOffset);
}

function readSlots(buffer: Buffer, footerOffset: number): PackSlot[] {
  const count = buffer.length < 4 ? -1 : buffer.readUInt32LE(0);
  if (count < 1 || count > PACK_MAX_SLOTS) throw damagedPack(`its footer counts ${count} chunks`);
  const slots: PackSlot[] = [];
  const header = Buffer.alloc(SEAL_HEADER_BYTES);
  header.write('HFC1', 0, 'latin1');
  let at = 4;
  for (let i = 0; i < count; i++) {
    if (at + SLOT_BYTES > buffer.length) throw damagedPack('its footer ends early');
    const offset = buffer.readUInt32LE(at);
    const length = buffer.readUInt32LE(at + 4);
    if (offset < MAGIC.length || length < SEAL_OVERHEAD_BYTES || offset + length > footerOffset)
      throw damagedPack('a slot lies outside of it');
    buffer.copy(header, 4, at + 40, at + 80);
    const parsed = parseSealHeader(header);
    const childrenAt = at + SLOT_BYTES;
    const end = childrenAt + buffer.readUInt16LE(at + 80) * ID_BYTES;
    if (end > buffer.length) throw damagedPack('its footer ends early');
    slots.push({
      ...parsed,
      id: buffer.subarray(at + 48, at + 80),
      offset,
      length,
      sha256: buffer.subarray(at + 8, at + 40),
      children: buffer.subarray(childrenAt, end),
    });
    at = end;
  }
  if (at !== buffer.length) throw damagedPack('its footer has bytes left over');
  return slots;
}

function damagedPack(why: string): HoldfastError {
  return new HoldfastError('damaged', `A pack is damaged: ${why}`);
}
