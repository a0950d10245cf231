import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  type KeyObject,
} from 'node:crypto';
import { HoldfastError } from '#contract/errors.ts';
import type { Random } from '#ports/random.ts';

const PUBLIC_BYTES = 32;
const TAG_BYTES = 16;
const INFO = 'holdfast sealed box v1';

/**
 * Encrypts a small secret so that only the holder of an X25519 private key can read it: an ephemeral
 * X25519 key, HKDF-SHA-256 over both public keys, AES-256-GCM. Layout: ephemeral public key (32), ciphertext, tag (16).
 * The nonce is zero, which is sound because every box has a key of its own.
 *
 * @param publicKey  32 bytes
 * @param context  bound to the box; {@link openBox} must give the same
 */
export function sealBox(publicKey: Uint8Array, plain: Uint8Array, context: string, random: Random): Buffer {
  const ephemeral = x25519PrivateKey(random.bytes(32));
  const ephemeralPublic = x25519PublicBytes(ephemeral);
  const key = boxKey(ephemeral, importPublic(publicKey), ephemeralPublic, publicKey);
  const cipher = createCipheriv('aes-256-gcm', key, Buffer.alloc(12));
  cipher.setAAD(Buffer.from(context));
  return Buffer.concat([ephemeralPublic, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** Opens a box; throws `wrong-key` if it was sealed to another key, for another context, or was altered. */
export function openBox(privateKey: KeyObject, box: Uint8Array, context: string): Buffer {
  try {
    const bytes = Buffer.from(box);
    const ephemeral = bytes.subarray(0, PUBLIC_BYTES);
    const key = boxKey(privateKey, importPublic(ephemeral), ephemeral, x25519PublicBytes(privateKey));
    const decipher = createDecipheriv('aes-256-gcm', key, Buffer.alloc(12));
    decipher.setAAD(Buffer.from(context));
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES));
    return Buffer.concat([decipher.update(bytes.subarray(PUBLIC_BYTES, bytes.length - TAG_BYTES)), decipher.final()]);
  } catch (cause) {
    throw new HoldfastError('wrong-key', 'A sealed secret does not open with this key', { cause });
  }
}

/** The X25519 private key of 32 random bytes (RFC 7748; PKCS #8 as in RFC 8410). */
export function x25519PrivateKey(seed: Uint8Array): KeyObject {
  const der = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), seed]);
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
}

/** The 32 bytes of a private key's public half. */
export function x25519PublicBytes(privateKey: KeyObject): Buffer {
  return Buffer.from(createPublicKey(privateKey).export({ format: 'jwk' }).x!, 'base64url');
}

function importPublic(bytes: Uint8Array): KeyObject {
  const x = Buffer.from(bytes).toString('base64url');
  return createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });
}

function boxKey(own: KeyObject, other: KeyObject, ephemeral: Uint8Array, recipient: Uint8Array): Buffer {
  const shared = diffieHellman({ privateKey: own, publicKey: other });
  return Buffer.from(hkdfSync('sha256', shared, Buffer.concat([ephemeral, recipient]), INFO, 32));
}
