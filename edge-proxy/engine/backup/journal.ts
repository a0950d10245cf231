import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import type { IndexedPack } from '#repository/index-segment.ts';
import { writeFailure } from '../../sources/file-errors.ts';

const HEADER_BYTES = 8; // payload length, CRC-32 of the payload
const PACK_BYTES = 16 + 8;

/** A pack that a session has sent, or was about to. */
export interface JournaledPack {
  readonly pack: IndexedPack;
  /** The pack's footer, which names the chunks in it. */
  readonly footer: Buffer;
}

/**
 * The packs of a machine's unfinished backup, on the proxy's disk. A pack is written down before it is
 * sent: after a crash, whatever arrived whole is found by asking the vault for those names, and is
 * neither sent nor sealed again. Losing the journal costs sending, never safety.
 */
export class Journal {
  readonly #path: string;
  readonly #descriptor: number;

  private constructor(path: string, descriptor: number) {
    this.#path = path;
    this.#descriptor = descriptor;
  }

  /** Opens the journal and reads what an earlier session left in it; a torn last record is cut off. */
  static open(path: string): { readonly journal: Journal; readonly packs: readonly JournaledPack[] } {
    mkdirSync(dirname(path), { recursive: true });
    const { packs, validBytes } = existsSync(path) ? parseJournal(readFileSync(path)) : { packs: [], validBytes: 0 };
    const descriptor = openSync(path, 'a', 0o600);
    ftruncateSync(descriptor, validBytes);
    return { journal: new Journal(path, descriptor), packs };
  }

  /** Writes down a pack that is about to be sent. */
  add({ pack, footer }: JournaledPack): void {
    const record = Buffer.alloc(HEADER_BYTES + PACK_BYTES + footer.length);
    pack.id.copy(record, HEADER_BYTES);
    record.writeUInt32LE(pack.sizeBytes, HEADER_BYTES + 16);
    record.writeUInt32LE(pack.footerOffset, HEADER_BYTES + 20);
    footer.copy(record, HEADER_BYTES + PACK_BYTES);
    record.writeUInt32LE(record.length - HEADER_BYTES, 0);
    record.writeUInt32LE(crc32(record.subarray(HEADER_BYTES)), 4);
    try {
      // A short write (a full disk) is an error at the next attempt; a torn record is cut off when it is read.
      for (let done = 0; done < record.length; ) done += writeSync(this.#descriptor, record, done);
    } catch (cause) {
      throw writeFailure(this.#path, cause);
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** The session is over: its packs are in the vault's index now. */
  finish(): void {
    this.close();
    rmSync(this.#path, { force: true });
  }
}

/** Reads records until the first that is not whole. */
export function parseJournal(bytes: Buffer): { readonly packs: JournaledPack[]; readonly validBytes: number } {
  const packs: JournaledPack[] = [];
  let at = 0;
  while (at + HEADER_BYTES + PACK_BYTES <= bytes.length) {
    const length = bytes.readUInt32LE(at);
    const payload = bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length);
    if (payload.length !== length || length < PACK_BYTES || crc32(payload) !== bytes.readUInt32LE(at + 4)) break;
    packs.push({
      pack: {
        id: payload.subarray(0, 16),
        sizeBytes: payload.readUInt32LE(16),
        footerOffset: payload.readUInt32LE(20),
      },
      footer: payload.subarray(PACK_BYTES),
    });
    at += HEADER_BYTES + length;
  }
  return { packs, validBytes: at };
}
