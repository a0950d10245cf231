import { createCipheriv, createDecipheriv, scrypt } from 'node:crypto';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { idSchema } from '#contract/ids.ts';
import type { Random } from '#ports/random.ts';
import { decodeKeys, encodeKeys, type VaultKeys } from './keys.ts';

/** scrypt (RFC 7914) at 128 MiB: about half a second, and as long for each guess of an attacker. */
const SCRYPT = { N: 2 ** 17, r: 8, p: 1, maxmem: 160 * 1024 * 1024 };
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

const keyFile = z.discriminatedUnion('protection', [
  z.object({
    holdfast: z.literal('key-file-1'),
    protection: z.literal('none'),
    vault: idSchema('vault'),
    keys: z.base64(),
  }),
  z.object({
    holdfast: z.literal('key-file-1'),
    protection: z.literal('passphrase'),
    vault: idSchema('vault'),
    scrypt: z.object({
      n: z
        .number()
        .int()
        .min(2 ** 14)
        .max(2 ** 20),
      r: z.literal(8),
      p: z.literal(1),
      salt: z.base64(),
    }),
    keys: z.base64(),
  }),
]);
type KeyFile = z.infer<typeof keyFile>;

/** The text of a key file. With a passphrase the keys in it are useless without; else keep the file itself secret. */
export async function writeKeyFile(keys: VaultKeys, passphrase: string | undefined, random: Random): Promise<string> {
  const plain = encodeKeys(keys);
  if (passphrase === undefined) {
    return format({
      holdfast: 'key-file-1',
      protection: 'none',
      vault: keys.vault,
      keys: Buffer.from(plain).toString('base64'),
    });
  }
  const salt = random.bytes(16);
  const nonce = random.bytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', await stretch(passphrase, salt, SCRYPT.N), nonce);
  cipher.setAAD(Buffer.from(keys.vault));
  const sealed = Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  return format({
    holdfast: 'key-file-1',
    protection: 'passphrase',
    vault: keys.vault,
    scrypt: { n: SCRYPT.N, r: 8, p: 1, salt: Buffer.from(salt).toString('base64') },
    keys: sealed.toString('base64'),
  });
}

/** Reads a key file's text; throws `wrong-key` without or with a wrong passphrase, `damaged` if it is no key file. */
export async function readKeyFile(text: string, passphrase: string | undefined): Promise<VaultKeys> {
  const file = parse(text);
  if (file.protection === 'none') return decodePlain(file.keys);
  if (passphrase === undefined) {
    throw new HoldfastError('wrong-key', 'The key file is protected by a passphrase', {
      remedy: 'Give it with --passphrase-file FILE',
    });
  }
  const sealed = Buffer.from(file.keys, 'base64');
  if (sealed.length <= NONCE_BYTES + TAG_BYTES) throw noKeyFile();
  const key = await stretch(passphrase, Buffer.from(file.scrypt.salt, 'base64'), file.scrypt.n);
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE_BYTES));
  decipher.setAAD(Buffer.from(file.vault));
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  let plain: Buffer;
  try {
    plain = Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES)), decipher.final()]);
  } catch (cause) {
    throw new HoldfastError('wrong-key', 'The passphrase does not open the key file', {
      cause,
      remedy: 'Check the passphrase file: its first line, without the line end, is the passphrase',
    });
  }
  return decodeKeys(plain);
}

function decodePlain(keys: string): VaultKeys {
  try {
    return decodeKeys(Buffer.from(keys, 'base64'));
  } catch (cause) {
    if (!(cause instanceof HoldfastError)) throw cause;
    throw new HoldfastError('damaged', `The key file is damaged: ${cause.message}`, {
      cause,
      remedy: 'Use your copy of it',
    });
  }
}

function parse(text: string): KeyFile {
  try {
    return keyFile.parse(JSON.parse(text));
  } catch {
    throw noKeyFile();
  }
}

function noKeyFile(): HoldfastError {
  return new HoldfastError('damaged', 'This is not a Holdfast key file', {
    remedy: 'Give the file that `vault init` wrote, or your copy of it',
  });
}

function format(file: KeyFile): string {
  return `${JSON.stringify(file, null, 2)}\n`;
}

function stretch(passphrase: string, salt: Uint8Array, n: number): Promise<Buffer> {
  return new Promise((resolve, reject) =>
    scrypt(passphrase.normalize('NFC'), salt, 32, { ...SCRYPT, N: n, maxmem: 256 * n * 8 }, (error, key) =>
      error ? reject(error) : resolve(key),
    ),
  );
}
