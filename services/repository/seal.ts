import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from 'node:crypto';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { HoldfastError } from '#contract/errors.ts';
import type { Random } from '#ports/random.ts';
import { CHUNK_KINDS, type ChunkKind } from './chunk.ts';
import { freeBuffer } from './free-buffer.ts';
import { KeyedHash } from './keyed-hash.ts';
import type { VaultKeys } from './keys.ts';
import { ID_BYTES } from './parameters.ts';

/** Bytes before a sealed chunk's nonce; authenticated, in clear. */
export const SEAL_HEADER_BYTES = 44;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** What sealing adds to a chunk's compressed bytes. */
export const SEAL_OVERHEAD_BYTES = SEAL_HEADER_BYTES + NONCE_BYTES + TAG_BYTES;
/** No chunk is larger than this before compression: 512 KiB of pages, or a node. */
export const CHUNK_MAX_RAW_BYTES = 1024 * 1024;

const MAGIC = 0x48464331; // "HFC1"
const CODEC_RAW = 0;
const CODEC_ZSTD = 1;
const KIND_OF_NUMBER: Readonly<Record<number, ChunkKind>> = { 1: 'data', 2: 'node' };
const KEY_TAG = 0;

/** The header of a sealed chunk. */
export interface SealHeader {
  readonly kind: ChunkKind;
  readonly codec: 'raw' | 'zstd';
  /** Which of the vault's sealing keys, from 0. */
  readonly epoch: number;
  readonly rawLength: number;
  readonly id: Buffer;
}

/** Parses a sealed chunk's header; throws `damaged`. Needs no keys. */
export function parseSealHeader(bytes: Uint8Array): SealHeader {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < SEAL_HEADER_BYTES || buffer.readUInt32BE(0) !== MAGIC)
    throw damaged('it does not begin as a sealed chunk');
  const kind = KIND_OF_NUMBER[buffer[4]!];
  const codec = buffer[5] === CODEC_RAW ? 'raw' : buffer[5] === CODEC_ZSTD ? 'zstd' : undefined;
  const rawLength = buffer.readUInt32LE(8);
  if (kind === undefined || codec === undefined) throw damaged('unknown kind or codec');
  if (rawLength === 0 || rawLength > CHUNK_MAX_RAW_BYTES) throw damaged(`a raw length of ${rawLength} bytes`);
  return { kind, codec, epoch: buffer.readUInt16LE(6), rawLength, id: buffer.subarray(12, 12 + ID_BYTES) };
}

/** Compresses and encrypts chunks, each under a key of its own: see docs/format.md, "Sealed chunk". */
export class Sealer {
  readonly #keys: VaultKeys;
  readonly #random: Random;
  readonly #epoch: number;
  readonly #chunkKeys: readonly KeyedHash[];
  readonly #header = Buffer.alloc(SEAL_HEADER_BYTES);

  constructor(keys: VaultKeys, random: Random) {
    this.#keys = keys;
    this.#random = random;
    this.#epoch = keys.sealKeys.length - 1;
    this.#chunkKeys = keys.sealKeys.map((key) => new KeyedHash(key));
    this.#header.writeUInt32BE(MAGIC, 0);
    this.#header.writeUInt16LE(this.#epoch, 6);
  }

  /** Compresses with zstd; answers the content itself where that saves less than 2 %. */
  compress(content: Uint8Array, level: number): Uint8Array {
    const compressed = zstdCompressSync(content, {
      // The output buffer is taken whole at once: half of the content nearly always suffices.
      chunkSize: content.length + 256,
      params: { [constants.ZSTD_c_compressionLevel]: level },
    });
    return compressed.length < content.length * 0.98 ? compressed : content;
  }

  /**
   * Encrypts what {@link compress} answered into `out`.
   * @returns the sealed length: `stored.length + SEAL_OVERHEAD_BYTES`
   */
  seal(kind: ChunkKind, id: Uint8Array, stored: Uint8Array, rawLength: number, out: Uint8Array): number {
    const header = this.#header;
    header[4] = CHUNK_KINDS[kind];
    header[5] = stored.length === rawLength ? CODEC_RAW : CODEC_ZSTD;
    header.writeUInt32LE(rawLength, 8);
    header.set(id, 12);
    const nonce = this.#random.bytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', chunkKey(this.#chunkKeys[this.#epoch]!, id), nonce);
    cipher.setAAD(header);
    out.set(header, 0);
    out.set(nonce, SEAL_HEADER_BYTES);
    let at = SEAL_HEADER_BYTES + NONCE_BYTES;
    const text = cipher.update(stored);
    out.set(text, at);
    at += text.length;
    freeBuffer(text);
    cipher.final();
    out.set(cipher.getAuthTag(), at);
    return at + TAG_BYTES;
  }

  /**
   * Decrypts and decompresses. Whoever uses the content checks it against its id with ChunkNamer.
   * Throws `damaged` for whatever is not exactly what was sealed, `wrong-key` for an unknown epoch.
   */
  open(sealed: Uint8Array): { readonly header: SealHeader; readonly content: Buffer } {
    const header = parseSealHeader(sealed);
    const key = this.#chunkKeys[header.epoch];
    if (key === undefined) {
      throw new HoldfastError(
        'wrong-key',
        `The chunk was sealed with key ${header.epoch + 1}; the key file has ${this.#keys.sealKeys.length}`,
        {
          remedy: 'Use the key file as it is after the last key rotation',
        },
      );
    }
    if (sealed.length < SEAL_OVERHEAD_BYTES) throw damaged('it ends early');
    const nonce = sealed.subarray(SEAL_HEADER_BYTES, SEAL_HEADER_BYTES + NONCE_BYTES);
    const decipher = createDecipheriv('aes-256-gcm', chunkKey(key, header.id), nonce);
    decipher.setAAD(sealed.subarray(0, SEAL_HEADER_BYTES));
    decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
    const text = decipher.update(sealed.subarray(SEAL_HEADER_BYTES + NONCE_BYTES, sealed.length - TAG_BYTES));
    try {
      decipher.final();
    } catch (cause) {
      throw damaged('its authentication tag does not match', cause);
    }
    return {
      header,
      content: header.codec === 'raw' ? checkLength(text, header.rawLength) : decompress(text, header.rawLength),
    };
  }
}

/** As a KeyObject: Node takes 12 µs longer to find out that plain bytes are none. */
function chunkKey(key: KeyedHash, id: Uint8Array): KeyObject {
  return createSecretKey(key.digest(KEY_TAG, id));
}

function decompress(text: Buffer, rawLength: number): Buffer {
  try {
    const content = zstdDecompressSync(text, { chunkSize: Math.max(64, rawLength), maxOutputLength: rawLength });
    freeBuffer(text);
    return checkLength(content, rawLength);
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    throw damaged('it does not decompress', cause);
  }
}

function checkLength(content: Buffer, rawLength: number): Buffer {
  if (content.length !== rawLength) throw damaged(`it holds ${content.length} bytes instead of ${rawLength}`);
  return content;
}

function damaged(why: string, cause?: unknown): HoldfastError {
  return new HoldfastError('damaged', `A sealed chunk is damaged: ${why}`, { cause });
}
