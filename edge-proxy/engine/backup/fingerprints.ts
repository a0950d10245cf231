import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { ZERO_PAGE_HASH } from '#repository/page.ts';
import { FINGERPRINT_BYTES, HASH_BYTES, SEGMENT_PAGES } from '#repository/parameters.ts';
import { sha256 } from '#repository/sha256.ts';

const ZERO_FINGERPRINT = ZERO_PAGE_HASH.subarray(0, FINGERPRINT_BYTES);
const SEGMENT_FINGERPRINT_BYTES = SEGMENT_PAGES * FINGERPRINT_BYTES;
const RECORD_HEADER = 8;
/** In place of a page count: the record holds all pages of the segment in order, without their numbers. */
const ALL_PAGES = 0xffff;
/** Bytes of SHA-256 kept of each segment's fingerprints: half a MiB for a disk of 1 TiB. */
export const SUM_BYTES = 8;

/**
 * The fingerprints of one segment, 16 bytes a page; a page of 16 zero bytes is not known.
 *
 * A fingerprint that is older than the image would let a page that went back to an earlier content pass as
 * unchanged. So a segment whose fingerprints do not match their sum (a flipped bit, or a write that a loss of
 * power took) is not known at all.
 *
 * @param sums  {@link SUM_BYTES} a segment
 * @returns whether anything is known
 */
export function readFingerprints(descriptor: number, sums: Buffer, segment: number, into: Buffer): boolean {
  const got = readSync(descriptor, into, 0, SEGMENT_FINGERPRINT_BYTES, segment * SEGMENT_FINGERPRINT_BYTES);
  into.fill(0, got, SEGMENT_FINGERPRINT_BYTES);
  const at = segment * SUM_BYTES;
  if (sumOf(into).compare(sums, at, at + SUM_BYTES) === 0) return true;
  into.fill(0, 0, SEGMENT_FINGERPRINT_BYTES);
  return false;
}

function sumOf(fingerprints: Buffer): Buffer {
  return sha256(fingerprints.subarray(0, SEGMENT_FINGERPRINT_BYTES)).subarray(0, SUM_BYTES);
}

/** True if the page is what the fingerprint says. */
export function fingerprintMatches(fingerprints: Buffer, page: number, hashes: Buffer, zero: Uint8Array): boolean {
  const at = page * FINGERPRINT_BYTES;
  if (zero[page] === 1) return ZERO_FINGERPRINT.compare(fingerprints, at, at + FINGERPRINT_BYTES) === 0;
  return (
    hashes.compare(
      fingerprints,
      at,
      at + FINGERPRINT_BYTES,
      page * HASH_BYTES,
      page * HASH_BYTES + FINGERPRINT_BYTES,
    ) === 0
  );
}

/** A log record that holds the fingerprints of all `pages` of a segment. */
export function recordAll(segment: number, pages: number, hashes: Buffer, zero: Uint8Array): Uint8Array {
  const record = Buffer.alloc(RECORD_HEADER + pages * FINGERPRINT_BYTES);
  record.writeUInt32LE(segment, 0);
  record.writeUInt16LE(pages, 4);
  record.writeUInt16LE(ALL_PAGES, 6);
  for (let page = 0; page < pages; page++)
    putFingerprint(record, RECORD_HEADER + page * FINGERPRINT_BYTES, page, hashes, zero);
  return record;
}

/** A log record that holds the fingerprints of the given pages of a segment. */
export function recordSome(segment: number, pages: readonly number[], hashes: Buffer, zero: Uint8Array): Uint8Array {
  const record = Buffer.alloc(RECORD_HEADER + pages.length * (2 + FINGERPRINT_BYTES));
  record.writeUInt32LE(segment, 0);
  record.writeUInt16LE(pages.length, 4);
  let at = RECORD_HEADER + pages.length * 2;
  pages.forEach((page, i) => {
    record.writeUInt16LE(page, RECORD_HEADER + i * 2);
    putFingerprint(record, at, page, hashes, zero);
    at += FINGERPRINT_BYTES;
  });
  return record;
}

function putFingerprint(record: Buffer, at: number, page: number, hashes: Buffer, zero: Uint8Array): void {
  // A short last page of zeros counts as zero too, whatever its own hash is.
  if (zero[page] === 1) ZERO_FINGERPRINT.copy(record, at);
  else hashes.copy(record, at, page * HASH_BYTES, page * HASH_BYTES + FINGERPRINT_BYTES);
}

/**
 * Lays the records of a log over a fingerprint file and brings the sums up to date. Doing it twice does no harm.
 *
 * @param log  its path, and the length and SHA-256 of what was written to it
 * @returns false if the log is not what was written: then neither the file nor the sums are of any use
 */
export function applyFingerprintLog(
  log: { readonly path: string; readonly bytes: number; readonly sha256: string },
  path: string,
  sums: Buffer,
): boolean {
  const source = openSync(log.path, 'r');
  closeSync(openSync(path, 'a+'));
  const target = openSync(path, 'r+');
  const record = Buffer.alloc(RECORD_HEADER + SEGMENT_PAGES * (2 + FINGERPRINT_BYTES));
  const fingerprints = Buffer.alloc(SEGMENT_FINGERPRINT_BYTES);
  const hash = createHash('sha256');
  const take = (from: number, length: number, at: number) => {
    if (readSync(source, record, from, length, at) !== length) return false;
    hash.update(record.subarray(from, from + length));
    return true;
  };
  try {
    for (let at = 0; at < log.bytes; ) {
      if (!take(0, RECORD_HEADER, at)) return false;
      const segment = record.readUInt32LE(0);
      const count = record.readUInt16LE(4);
      const all = record.readUInt16LE(6) === ALL_PAGES;
      const body = count * (all ? FINGERPRINT_BYTES : 2 + FINGERPRINT_BYTES);
      if (count > SEGMENT_PAGES || (segment + 1) * SUM_BYTES > sums.length) return false;
      if (!take(RECORD_HEADER, body, at + RECORD_HEADER)) return false;
      if (all) fingerprints.fill(0);
      else readFingerprints(target, sums, segment, fingerprints);
      if (!overlay(fingerprints, record, count, all)) return false;
      writeSync(target, fingerprints, 0, fingerprints.length, segment * SEGMENT_FINGERPRINT_BYTES);
      sumOf(fingerprints).copy(sums, segment * SUM_BYTES);
      at += RECORD_HEADER + body;
    }
    return hash.digest('hex') === log.sha256;
  } finally {
    closeSync(source);
    closeSync(target);
  }
}

/** Puts a record's fingerprints in their places; false if it names a page that no segment has. */
function overlay(fingerprints: Buffer, record: Buffer, count: number, all: boolean): boolean {
  if (all) {
    record.copy(fingerprints, 0, RECORD_HEADER, RECORD_HEADER + count * FINGERPRINT_BYTES);
    return true;
  }
  let from = RECORD_HEADER + count * 2;
  for (let i = 0; i < count; i++, from += FINGERPRINT_BYTES) {
    const page = record.readUInt16LE(RECORD_HEADER + i * 2);
    if (page >= SEGMENT_PAGES) return false;
    record.copy(fingerprints, page * FINGERPRINT_BYTES, from, from + FINGERPRINT_BYTES);
  }
  return true;
}
