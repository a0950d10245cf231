import { createConnection, type NetConnectOpts, type Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { HoldfastError } from '#contract/errors.ts';
import type { NbdAddress } from '../sources/disk.ts';
import { formatNbdUri } from './address.ts';
import { NBD_PORT } from './protocol.ts';
import { startClientTls } from './tls.ts';

/** Bytes that one read from the socket may bring. Unix sockets give at most about 208 KiB at once. */
const RECEIVE_BYTES = 512 * 1024;

/** A client's connection: bytes in to one sink, bytes out, and the news that it has ended. */
export interface Channel {
  /** Gets each arrival; the bytes are only valid during the call. Replaceable at any time. */
  onBytes: (bytes: Buffer) => void;
  /** Told once, with the cause if there is one. */
  onEnd: (cause?: Error) => void;
  write(bytes: Uint8Array): void;
  /** Joins the writes of `act` into as few packets as possible. */
  batch(act: () => void): void;
  /** Goes on in TLS; rejects with `unauthorized`. */
  secure(options: ConnectionOptions): Promise<void>;
  /** Sends what is written and closes. */
  end(): Promise<void>;
  destroy(): void;
}

/** How long a peer may take to accept our last bytes before the connection is cut. */
const LINGER_MS = 1000;

/**
 * Connects to the address's socket. Throws `unreadable` (retryable) if nothing answers and `cancelled`.
 * Without TLS all arrivals share one buffer: an event with a new buffer for each costs twice the processor time.
 */
export async function openChannel(address: NbdAddress, signal: AbortSignal): Promise<Channel> {
  let socket: Socket;
  let ended = false;
  const channel: Channel = {
    onBytes: () => {},
    onEnd: () => {},
    write: (bytes) => void socket.write(bytes),
    batch: (act) => {
      socket.cork();
      act();
      socket.uncork();
    },
    secure: async (options) => {
      const plain = socket;
      plain.removeAllListeners('data');
      plain.pause();
      socket = await startClientTls(plain, options);
      listen(socket);
      socket.on('data', (bytes: Buffer) => channel.onBytes(bytes));
    },
    end: () =>
      new Promise((resolve) => {
        if (socket.destroyed) return resolve();
        const cut = setTimeout(() => socket.destroy(), LINGER_MS);
        socket.once('close', () => {
          clearTimeout(cut);
          resolve();
        });
        socket.destroySoon();
      }),
    destroy: () => void socket.destroy(),
  };
  const finish = (cause?: Error) => {
    if (ended) return;
    ended = true;
    channel.onEnd(cause);
  };
  const listen = (on: Socket) => {
    on.on('error', finish);
    on.on('end', () => finish());
    on.on('close', () => finish());
  };
  const target: NetConnectOpts =
    address.socket === undefined
      ? {
          host: address.host ?? 'localhost',
          port: address.port ?? NBD_PORT,
          noDelay: true,
          keepAlive: true,
          keepAliveInitialDelay: 30_000,
        }
      : { path: address.socket };
  if (address.tls) {
    socket = createConnection(target);
    socket.on('data', (bytes: Buffer) => channel.onBytes(bytes));
  } else {
    const buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
    const callback = (length: number) => {
      channel.onBytes(buffer.subarray(0, length));
      return true;
    };
    // The typings of this documented option lag behind: they take it for the constructor only.
    socket = createConnection({ ...target, onread: { buffer, callback } } as NetConnectOpts);
  }
  await connected(socket, address, signal);
  listen(socket);
  return channel;
}

function connected(socket: Socket, address: NbdAddress, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      socket.destroy();
      reject(signal.reason);
    };
    const fail = (cause: Error) => {
      signal.removeEventListener('abort', abort);
      socket.destroy();
      reject(unreachable(address, cause));
    };
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    socket.once('error', fail);
    socket.once('connect', () => {
      signal.removeEventListener('abort', abort);
      socket.removeListener('error', fail);
      resolve();
    });
  });
}

function unreachable(address: NbdAddress, cause: Error): HoldfastError {
  const code = (cause as NodeJS.ErrnoException).code ?? cause.message;
  return new HoldfastError('unreadable', `Cannot connect to ${formatNbdUri(address)}: ${code}`, {
    cause,
    retryable: true,
    remedy:
      code === 'EACCES'
        ? 'Run as a user who may open the socket'
        : 'Check that the NBD server runs and listens at this address',
  });
}
