import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { HoldfastError } from '#contract/errors.ts';
import { ZERO_PAGE_HASH } from '#repository/page.ts';
import { FINGERPRINT_BYTES, HASH_BYTES, SEGMENT_PAGES } from '#repository/parameters.ts';

const ZERO_FINGERPRINT = ZERO_PAGE_HASH.subarray(0, FINGERPRINT_BYTES);
const SEGMENT_FINGERPRINT_BYTES = SEGMENT_PAGES * FINGERPRINT_BYTES;
const RECORD_HEADER = 8;
/** In place of a page count: the record holds all pages of the segment in order, without their numbers. */
const ALL_PAGES = 0xffff;

/** The fingerprints of one segment, 16 bytes a page; a page of 16 zero bytes is not known. */
export function readFingerprints(descriptor: number, segment: number, into: Buffer): void {
  const got = readSync(descriptor, into, 0, SEGMENT_FINGERPRINT_BYTES, segment * SEGMENT_FINGERPRINT_BYTES);
  into.fill(0, got, SEGMENT_FINGERPRINT_BYTES);
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
 * Lays the records of a log over a fingerprint file and forces it to the disk. Doing it twice does no harm.
 * Throws `damaged` if the log is not what was written.
 */
export function applyFingerprintLog(logPath: string, logBytes: number, path: string): void {
  const log = openSync(logPath, 'r');
  const file = openSync(path, 'a+');
  closeSync(file);
  const target = openSync(path, 'r+');
  const record = Buffer.alloc(RECORD_HEADER + SEGMENT_PAGES * (2 + FINGERPRINT_BYTES));
  try {
    for (let at = 0; at < logBytes; ) {
      readExactly(log, record.subarray(0, RECORD_HEADER), at, logPath);
      const base = record.readUInt32LE(0) * SEGMENT_FINGERPRINT_BYTES;
      const count = record.readUInt16LE(4);
      const all = record.readUInt16LE(6) === ALL_PAGES;
      const body = count * (all ? FINGERPRINT_BYTES : 2 + FINGERPRINT_BYTES);
      const valid = count > 0 && count <= SEGMENT_PAGES && at + RECORD_HEADER + body <= logBytes;
      if (!valid) throw new HoldfastError('damaged', `The fingerprint log ${logPath} is not readable at ${at}`);
      readExactly(log, record.subarray(RECORD_HEADER, RECORD_HEADER + body), at + RECORD_HEADER, logPath);
      if (all) writeSync(target, record, RECORD_HEADER, body, base);
      else writeRuns(target, record, count, base);
      at += RECORD_HEADER + body;
    }
    fsyncSync(target);
  } finally {
    closeSync(log);
    closeSync(target);
  }
}

function readExactly(descriptor: number, into: Buffer, position: number, path: string): void {
  if (readSync(descriptor, into, 0, into.length, position) !== into.length)
    throw new HoldfastError('damaged', `The fingerprint log ${path} ends early`);
}

/** Writes pages that follow each other at once. */
function writeRuns(target: number, record: Buffer, count: number, base: number): void {
  const pageAt = (i: number) => record.readUInt16LE(RECORD_HEADER + i * 2);
  const values = RECORD_HEADER + count * 2;
  for (let i = 0; i < count; ) {
    let end = i + 1;
    while (end < count && pageAt(end) === pageAt(end - 1) + 1) end++;
    writeSync(
      target,
      record,
      values + i * FINGERPRINT_BYTES,
      (end - i) * FINGERPRINT_BYTES,
      base + pageAt(i) * FINGERPRINT_BYTES,
    );
    i = end;
  }
}
