/**
 * Constants and small encoders of the NBD protocol.
 * Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle, structured replies).
 */

export const NBD_PORT = 10809;

export const MAGIC_SERVER = 0x4e42444d41474943n; // "NBDMAGIC"
export const MAGIC_OPTION = 0x49484156454f5054n; // "IHAVEOPT"
export const MAGIC_OPTION_REPLY = 0x3e889045565a9n;
export const MAGIC_REQUEST = 0x25609513;
export const MAGIC_SIMPLE_REPLY = 0x67446698;
export const MAGIC_CHUNK = 0x668e33ef;

/** Flags of the greeting; the client answers with the same bits. */
export const HANDSHAKE = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

const REPLY_ERROR = 0x80000000;
export const REPLY = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: REPLY_ERROR + 1,
  errPolicy: REPLY_ERROR + 2,
  errInvalid: REPLY_ERROR + 3,
  errPlatform: REPLY_ERROR + 4,
  errTlsRequired: REPLY_ERROR + 5,
  errUnknown: REPLY_ERROR + 6,
  errShutdown: REPLY_ERROR + 7,
  errBlockSizeRequired: REPLY_ERROR + 8,
  errTooBig: REPLY_ERROR + 9,
} as const;

/** True if an option reply's type says that the option failed. */
export function isReplyError(type: number): boolean {
  return type >= REPLY_ERROR;
}

export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** Transmission flags: what an export can do. */
export const FLAG = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  rotational: 1 << 4,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
} as const;

export const COMMAND = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const COMMAND_FLAG = { fua: 1, noHole: 2, df: 4, reqOne: 8, fastZero: 16 } as const;

export const CHUNK_FLAG_DONE = 1;
const CHUNK_ERROR = 1 << 15;
export const CHUNK = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: CHUNK_ERROR + 1,
  errorOffset: CHUNK_ERROR + 2,
} as const;

/** True if a chunk's type says that its request failed. */
export function isChunkError(type: number): boolean {
  return type >= CHUNK_ERROR;
}

/** `base:allocation` status bits. */
export const STATE = { hole: 1, zero: 2 } as const;

/** The protocol's own error numbers, whatever the hosts' are. */
export const ERRNO = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Name of a protocol error number, or `errno N`. */
export function errnoName(errno: number): string {
  for (const [name, value] of Object.entries(ERRNO)) if (value === errno) return name;
  return `errno ${errno}`;
}

export const REQUEST_BYTES = 28;
export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_HEAD_BYTES = 20;
export const OPTION_HEAD_BYTES = 16;
export const OPTION_REPLY_HEAD_BYTES = 20;

/** Longest export or context name of the protocol, in bytes. */
export const NAME_MAX_BYTES = 4096;
/** Reads and writes above this need a server that says it takes more. */
export const DEFAULT_MAX_REQUEST_BYTES = 32 * 1024 * 1024;
/** Trim, zero and status requests carry 32 bits of length. */
export const LENGTH_MAX = 0xffff_ffff;

/** Writes a request's head at `at`; the cookie must be below 2^32. */
export function putRequest(
  into: Buffer,
  at: number,
  request: {
    readonly command: number;
    readonly flags: number;
    readonly cookie: number;
    readonly offset: number;
    readonly length: number;
  },
): void {
  into.writeUInt32BE(MAGIC_REQUEST, at);
  into.writeUInt16BE(request.flags, at + 4);
  into.writeUInt16BE(request.command, at + 6);
  into.writeUInt32BE(0, at + 8);
  into.writeUInt32BE(request.cookie, at + 12);
  putUint64(into, at + 16, request.offset);
  into.writeUInt32BE(request.length, at + 24);
}

/** Writes a non-negative safe integer as 64 bits; without BigInt, since it runs once a request. */
export function putUint64(into: Buffer, at: number, value: number): void {
  into.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  into.writeUInt32BE(value % 2 ** 32, at + 4);
}

/** Reads 64 bits; values above 2^53 come out rounded, which every bound check still refuses. */
export function getUint64(from: Buffer, at: number): number {
  return from.readUInt32BE(at) * 2 ** 32 + from.readUInt32BE(at + 4);
}

/** A client's option: head and body. */
export function encodeOption(option: number, body: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.alloc(OPTION_HEAD_BYTES + body.length);
  bytes.writeBigUInt64BE(MAGIC_OPTION, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(body.length, 12);
  bytes.set(body, OPTION_HEAD_BYTES);
  return bytes;
}

/** A server's answer to an option. */
export function encodeOptionReply(option: number, type: number, body: Uint8Array | string = ''): Buffer {
  const payload = typeof body === 'string' ? Buffer.from(body) : body;
  const bytes = Buffer.alloc(OPTION_REPLY_HEAD_BYTES + payload.length);
  bytes.writeBigUInt64BE(MAGIC_OPTION_REPLY, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(payload.length, 16);
  bytes.set(payload, OPTION_REPLY_HEAD_BYTES);
  return bytes;
}

/** Text with its length in 32 bits before it. */
export function lengthPrefixed(text: string): Buffer {
  const body = Buffer.from(text);
  const bytes = Buffer.alloc(4 + body.length);
  bytes.writeUInt32BE(body.length, 0);
  bytes.set(body, 4);
  return bytes;
}

/** A 32-bit number as bytes. */
export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}

/** A 16-bit number as bytes. */
export function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value, 0);
  return bytes;
}
