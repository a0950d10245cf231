import { HoldfastError } from '#contract/errors.ts';
import type { Extent, NbdAddress } from '../sources/disk.ts';
import { formatNbdUri } from './address.ts';
import { AlignedIo } from './alignment.ts';
import { type Channel, openChannel } from './channel.ts';
import { Inbox } from './inbox.ts';
import {
  type Agreement,
  abortOptions,
  enter,
  greet,
  type ListedExport,
  listContexts,
  listExports,
  type Negotiation,
} from './negotiation.ts';
import { COMMAND, COMMAND_FLAG, FLAG, LENGTH_MAX } from './protocol.ts';
import { loadClientTls } from './tls.ts';
import { Transmission } from './transmission.ts';

export interface NbdOptions {
  /** Meta contexts to ask for; default `['base:allocation']`. What was granted is in {@link NbdClient.contexts}. */
  readonly contexts?: readonly string[];
  /** Bytes of one read or write on the wire; default 256 KiB, never above what the server takes. */
  readonly requestBytes?: number;
  /** Requests on the wire at a time; default 32. */
  readonly inFlight?: number;
  /** For connecting, TLS and the handshake together; default 15 s. */
  readonly connectTimeoutMs?: number;
  /** From sending a request to the end of its reply (flush: ten times this); default 60 s. */
  readonly requestTimeoutMs?: number;
  /** Default true; false for servers whose structured replies are broken. */
  readonly structured?: boolean;
  /** Aborting it cuts the connection: all that is under way rejects with `cancelled`. */
  readonly signal?: AbortSignal;
}

/** A range whose state is `flags` in some meta context (`base:allocation`: 1 hole, 2 zero; a dirty bitmap: 1 dirty). */
export interface StatusExtent extends Extent {
  readonly flags: number;
}

/**
 * One connection to one export. Offsets and lengths are bytes and need no alignment. Errors: `unreadable`,
 * `target-failed`, `target-full`, `forbidden`, `timeout`, `protocol`, `cancelled`, each with offset and length.
 */
export interface NbdClient extends AsyncDisposable {
  readonly address: NbdAddress;
  readonly sizeBytes: number;
  /** Transmission flags, see FLAG in protocol.ts. */
  readonly flags: number;
  readonly readOnly: boolean;
  /** Meta contexts that {@link blockStatus} may be asked about. */
  readonly contexts: readonly string[];
  /** Fills `into`; do not touch it before the promise settles. Ask for many ranges at once. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Writes; the data must stay as it is until the promise settles. `fua`: it survives loss of power by then. */
  write(offset: number, data: Uint8Array, options?: { readonly fua?: boolean }): Promise<void>;
  /** Makes the range read as zeros, as a hole if `punch` (default) and the server can. */
  zero(offset: number, length: number, options?: { readonly punch?: boolean; readonly fua?: boolean }): Promise<void>;
  /** Tells the server that the range's content no longer matters. Does nothing where the server cannot. */
  trim(offset: number, length: number): Promise<void>;
  /** Resolves when all that was written survives loss of power. */
  flush(): Promise<void>;
  /** The range's states in order, without gaps, asked for page by page; neighbours of equal state are joined. */
  blockStatus(context: string, offset: number, length: number): AsyncIterableIterator<StatusExtent>;
  /** Says goodbye and closes; what is under way rejects with `cancelled`. */
  close(): Promise<void>;
}

const DEFAULT_REQUEST_BYTES = 256 * 1024;
const DEFAULT_IN_FLIGHT = 32;
const DEFAULT_CONNECT_TIMEOUT_MS = 15_000;
const DEFAULT_REQUEST_TIMEOUT_MS = 60_000;
/** One zero or trim request: small enough that a server that writes real zeros answers in time. */
const ZERO_BYTES = 32 * 1024 * 1024;
/** One status request: 2 GiB, so that even a bad server's 32-bit sums do not overflow. */
const STATUS_BYTES = 2 ** 31;

/**
 * Connects to an export. Throws `unreadable` (nothing answers, retryable), `not-found` (no such export), `unauthorized`
 * (TLS), `timeout`, `cancelled`, `protocol`.
 *
 * @example await using disk = await connectNbd(parseNbdUri('nbd+unix:///?socket=/run/disk.sock'))
 */
export async function connectNbd(address: NbdAddress, options: NbdOptions = {}): Promise<NbdClient> {
  return handshake(address, options, async (on, { noZeroes }) => {
    const contexts = options.contexts ?? ['base:allocation'];
    const agreement = await enter(on, { contexts, structured: options.structured ?? true, noZeroes });
    return makeClient(on, agreement, options);
  });
}

/** The exports a server tells of. Throws like {@link connectNbd}, and `forbidden` where it does not tell. */
export async function listNbdExports(address: NbdAddress, options: NbdOptions = {}): Promise<readonly ListedExport[]> {
  return handshake(address, options, async (on) => {
    const found = await listExports(on);
    abortOptions(on);
    await on.channel.end();
    return found;
  });
}

/** The meta contexts an export offers; `queries` may hold namespaces such as `qemu:`, none asks for all. */
export async function listNbdContexts(
  address: NbdAddress,
  queries: readonly string[] = [],
  options: NbdOptions = {},
): Promise<readonly string[]> {
  return handshake(address, options, async (on) => {
    const found = await listContexts(on, queries);
    abortOptions(on);
    await on.channel.end();
    return found;
  });
}

async function handshake<T>(
  address: NbdAddress,
  options: NbdOptions,
  act: (on: Negotiation, greeting: { readonly noZeroes: boolean }) => Promise<T>,
): Promise<T> {
  const limitMs = options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
  const limit = AbortSignal.timeout(limitMs);
  const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
  const why = () => (options.signal?.aborted ? cancelled(address) : tooSlow(address, limitMs));
  const tls = address.tls ? await loadClientTls(address) : undefined;
  let channel: Channel | undefined;
  const inbox = new Inbox(1024 * 1024, { onFull: () => channel?.destroy() });
  const abort = () => {
    inbox.fail(why());
    channel?.destroy();
  };
  try {
    channel = await openChannel(address, signal);
    channel.onBytes = (bytes) => inbox.push(Buffer.from(bytes)); // a copy: the arrival buffer is reused
    channel.onEnd = (cause) => inbox.fail(hungUp(address, cause));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    const on = { channel, inbox, address };
    return await act(on, await greet(on, tls));
  } catch (cause) {
    channel?.destroy();
    throw signal.aborted ? why() : cause;
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function makeClient({ channel, inbox, address }: Negotiation, agreement: Agreement, options: NbdOptions): NbdClient {
  const { sizeBytes, flags, blocks } = agreement;
  const requestBytes = Math.max(
    Math.min(options.requestBytes ?? DEFAULT_REQUEST_BYTES, blocks.maximum),
    blocks.minimum,
  );
  const abort = (): void => transmission.stop(cancelled(address));
  const transmission = new Transmission(channel, {
    where: formatNbdUri(address),
    structured: agreement.structured,
    inFlight: options.inFlight ?? DEFAULT_IN_FLIGHT,
    requestBytes: requestBytes - (requestBytes % blocks.minimum),
    timeoutMs: options.requestTimeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS,
    onEnd: () => options.signal?.removeEventListener('abort', abort),
  });
  channel.onBytes = (bytes) => transmission.receive(bytes);
  channel.onEnd = (cause) => transmission.lost(cause);
  const early = inbox.drain();
  if (early.length > 0) transmission.receive(early);
  options.signal?.addEventListener('abort', abort, { once: true });

  const io = new AlignedIo(transmission, blocks.minimum);
  const can = (flag: number) => (flags & flag) !== 0;
  const inside = (offset: number, length: number) => {
    const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (!whole || offset + length > sizeBytes) {
      throw new HoldfastError(
        'usage',
        `The range ${offset}+${length} is outside of ${formatNbdUri(address)} (${sizeBytes} bytes)`,
        {
          data: { offset, length, sizeBytes },
        },
      );
    }
  };
  const writable = (offset: number, length: number) => {
    inside(offset, length);
    if (can(FLAG.readOnly)) {
      throw new HoldfastError('forbidden', `${formatNbdUri(address)} is read-only`, {
        remedy: 'Let the server export it for writing',
        data: { offset, length },
      });
    }
  };
  const flush = async () => {
    if (can(FLAG.sendFlush)) await transmission.run({ command: COMMAND.flush, flags: 0, offset: 0, length: 0 });
  };
  const fuaFlag = (fua?: boolean) => (fua && can(FLAG.sendFua) ? COMMAND_FLAG.fua : 0);
  const settle = async (fua?: boolean) => {
    if (fua && !can(FLAG.sendFua)) await flush();
  };

  const client: NbdClient = {
    address,
    sizeBytes,
    flags,
    readOnly: can(FLAG.readOnly),
    contexts: [...agreement.contexts.keys()],
    read: async (offset, into) => {
      inside(offset, into.length);
      await io.read(offset, into);
    },
    write: async (offset, data, { fua } = {}) => {
      writable(offset, data.length);
      await io.write(offset, data, fuaFlag(fua));
      await settle(fua);
    },
    zero: async (offset, length, { punch = true, fua } = {}) => {
      writable(offset, length);
      const zeroFlags = (punch ? 0 : COMMAND_FLAG.noHole) | fuaFlag(fua);
      if (can(FLAG.sendWriteZeroes)) await io.zero(offset, length, zeroFlags, ZERO_BYTES);
      else await io.writeZeros(offset, length, fuaFlag(fua));
      await settle(fua);
    },
    trim: async (offset, length) => {
      writable(offset, length);
      if (can(FLAG.sendTrim)) await io.trim(offset, length, ZERO_BYTES);
    },
    flush,
    blockStatus: (context, offset, length) => {
      inside(offset, length);
      const id = agreement.contexts.get(context);
      if (id === undefined) {
        throw new HoldfastError(
          'usage',
          `${formatNbdUri(address)} was not opened with the context ${context}, or has none`,
          {
            remedy: 'Name it in the contexts option and look at the granted ones',
          },
        );
      }
      return statusPages(transmission, { id, offset, length, align: blocks.minimum, sizeBytes });
    },
    close: () => transmission.close(cancelled(address)),
    [Symbol.asyncDispose]: () => client.close(),
  };
  if (options.signal?.aborted) abort();
  return client;
}

async function* statusPages(
  transmission: Transmission,
  ask: {
    readonly id: number;
    readonly offset: number;
    readonly length: number;
    readonly align: number;
    readonly sizeBytes: number;
  },
): AsyncIterableIterator<StatusExtent> {
  const end = ask.offset + ask.length;
  let at = ask.offset - (ask.offset % ask.align);
  let held: { offset: number; length: number; flags: number } | undefined;
  while (at < end) {
    const wanted = Math.min(Math.ceil((end - at) / ask.align) * ask.align, STATUS_BYTES, LENGTH_MAX);
    const page = await transmission.askStatus(ask.id, at, wanted);
    for (let i = 0; i < page.length; i += 8) {
      const length = page.readUInt32BE(i);
      const flags = page.readUInt32BE(i + 4);
      const from = Math.max(at, ask.offset);
      const to = Math.min(at + length, end); // the last extent may reach further than was asked
      at += length;
      if (to <= from) continue;
      if (held && held.flags === flags) held.length = to - held.offset;
      else {
        if (held) yield held;
        held = { offset: from, length: to - from, flags };
      }
    }
  }
  if (held) yield held;
}

function cancelled(address: NbdAddress): HoldfastError {
  return new HoldfastError('cancelled', `The connection to ${formatNbdUri(address)} was closed on request`);
}

function tooSlow(address: NbdAddress, limitMs: number): HoldfastError {
  return new HoldfastError('timeout', `${formatNbdUri(address)} did not complete the handshake within ${limitMs} ms`, {
    retryable: true,
    remedy: 'Check that the server is not overloaded and speaks NBD',
  });
}

function hungUp(address: NbdAddress, cause: Error | undefined): HoldfastError {
  return new HoldfastError('unreadable', `${formatNbdUri(address)} closed the connection during the handshake`, {
    cause,
    retryable: true,
    remedy: "Look into the server's log; it may refuse this client or have too many",
  });
}
