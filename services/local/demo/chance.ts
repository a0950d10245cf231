import { createCipheriv, createHash } from 'node:crypto';

/** Reproducible chance: the same seed gives the same disk on every run. Not for secrets. */
export interface Chance {
  /** A number in [0, 1). */
  fraction(): number;
  /** A whole number from `from` up to and including `to`. */
  between(from: number, to: number): number;
  /** Fills `into` with bytes that no compressor can shrink. */
  fill(into: Uint8Array): void;
}

/** A stream of chance named by any text. */
export function chance(seed: string): Chance {
  const key = createHash('sha256').update(seed).digest();
  const stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  const zeros = Buffer.alloc(64 * 1024);
  let words = Buffer.alloc(0);
  let at = 0;
  const fraction = () => {
    if (at === words.length) {
      words = stream.update(zeros.subarray(0, 4096));
      at = 0;
    }
    const value = words.readUInt32LE(at) / 2 ** 32;
    at += 4;
    return value;
  };
  return {
    fraction,
    between: (from, to) => from + Math.floor(fraction() * (to - from + 1)),
    fill(into) {
      for (let offset = 0; offset < into.length; offset += zeros.length) {
        into.set(stream.update(zeros.subarray(0, Math.min(zeros.length, into.length - offset))), offset);
      }
    },
  };
}

/** A number in [0, 1) that depends on the texts only: a place in a reproducible order. */
export function placeOf(...texts: string[]): number {
  return createHash('sha1').update(texts.join('\0')).digest().readUInt32LE(0) / 2 ** 32;
}

const ROW_BYTES = 128;
const ROW_TEXT = Buffer.from('status=shipped;currency=EUR;country=DE;warehouse=07;note=none;   ');

/** Fills `into` with rows as a database has them: half of each is the same as in the next, half is unlike any other. */
export function fillRows(into: Uint8Array, from: Chance): void {
  from.fill(into);
  for (let row = 0; row + ROW_BYTES <= into.length; row += ROW_BYTES) into.set(ROW_TEXT.subarray(0, 64), row + 64);
}

const WORDS = (
  'the of and to in is for with server request value error return function module package string number ' +
  'backup restore point disk chunk segment index proxy policy tenant machine version license copyright default'
).split(' ');

/** Fills `into` with words, about as compressible as source code. */
export function fillWords(into: Uint8Array, from: Chance): void {
  const letters = Buffer.from(into.buffer, into.byteOffset, into.byteLength);
  for (let at = 0; at < letters.length; ) {
    const number = from.fraction() < 0.2 ? ` ${from.between(0, 1e6)}` : '';
    at += letters.write(
      `${WORDS[from.between(0, WORDS.length - 1)]}${number}${from.fraction() < 0.1 ? '\n' : ' '}`,
      at,
    );
  }
}
