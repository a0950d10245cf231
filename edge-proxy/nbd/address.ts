import { HoldfastError } from '#contract/errors.ts';
import type { NbdAddress } from '../sources/disk.ts';
import { NAME_MAX_BYTES, NBD_PORT } from './protocol.ts';

const SCHEMES = new Set(['nbd:', 'nbds:', 'nbd+unix:', 'nbds+unix:']);

/** True if the text is one of the URIs that {@link parseNbdUri} reads, rather than a path. */
export function isNbdUri(text: string): boolean {
  return /^nbds?(\+unix)?:\/\//.test(text);
}

/**
 * Parses `nbd://host[:port]/NAME`, `nbd+unix:///NAME?socket=PATH` and the same with TLS (`nbds…`, which
 * needs `ca-file=PEM` or `tls-certificates=FOLDER`; also `cert-file=`, `key-file=`, `tls-hostname=`).
 * Throws `usage`.
 *
 * @example parseNbdUri('nbd+unix:///disk?socket=/run/x.sock') // { socket: '/run/x.sock', exportName: 'disk' }
 */
export function parseNbdUri(uri: string): NbdAddress {
  let url: URL;
  try {
    url = new URL(uri);
  } catch (cause) {
    throw badUri(uri, 'it is not a URI', cause);
  }
  if (!SCHEMES.has(url.protocol)) throw badUri(uri, `scheme ${url.protocol} is not one of NBD's`);
  const exportName = decode(uri, url.pathname.replace(/^\//, ''));
  if (Buffer.byteLength(exportName) > NAME_MAX_BYTES)
    throw badUri(uri, `the export name is over ${NAME_MAX_BYTES} bytes`);
  const tls = url.protocol.startsWith('nbds') ? tlsOf(uri, url) : undefined;
  const unix = url.protocol.endsWith('+unix:');
  if (unix) {
    const socket = url.searchParams.get('socket');
    if (!socket) throw badUri(uri, 'socket=PATH is missing');
    return { socket, exportName, ...(tls ? { tls } : {}) };
  }
  if (!url.hostname) throw badUri(uri, 'the host is missing');
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return { host, port: url.port === '' ? NBD_PORT : Number(url.port), exportName, ...(tls ? { tls } : {}) };
}

/** The URI of an address, for messages and for foreign programs. */
export function formatNbdUri(address: NbdAddress): string {
  const scheme = address.tls ? 'nbds' : 'nbd';
  const name = address.exportName.split('/').map(encodeURIComponent).join('/');
  const query = new URLSearchParams();
  if (address.socket !== undefined) query.set('socket', address.socket);
  if (address.tls) {
    query.set('ca-file', address.tls.caFile);
    if (address.tls.certFile) query.set('cert-file', address.tls.certFile);
    if (address.tls.keyFile) query.set('key-file', address.tls.keyFile);
    if (address.tls.serverName) query.set('tls-hostname', address.tls.serverName);
  }
  const tail = query.size === 0 ? '' : `?${query.toString().replaceAll('%2F', '/')}`;
  if (address.socket !== undefined) return `${scheme}+unix:///${name}${tail}`;
  const host = address.host?.includes(':') ? `[${address.host}]` : (address.host ?? 'localhost');
  return `${scheme}://${host}:${address.port ?? NBD_PORT}/${name}${tail}`;
}

function tlsOf(uri: string, url: URL): NonNullable<NbdAddress['tls']> {
  const folder = url.searchParams.get('tls-certificates');
  const caFile = url.searchParams.get('ca-file') ?? (folder ? `${folder}/ca-cert.pem` : null);
  // Without a pinned authority anyone with any public certificate could serve the disk.
  if (!caFile) throw badUri(uri, 'TLS needs ca-file=PEM, the certificate authority of the server');
  const certFile = url.searchParams.get('cert-file');
  const keyFile = url.searchParams.get('key-file');
  if (Boolean(certFile) !== Boolean(keyFile)) throw badUri(uri, 'cert-file and key-file come together');
  const serverName = url.searchParams.get('tls-hostname');
  return {
    caFile,
    ...(certFile && keyFile ? { certFile, keyFile } : {}),
    ...(serverName ? { serverName } : {}),
  };
}

function decode(uri: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw badUri(uri, 'the export name is badly encoded', cause);
  }
}

function badUri(uri: string, why: string, cause?: unknown): HoldfastError {
  return new HoldfastError('usage', `Cannot read the NBD address ${uri}: ${why}`, {
    cause,
    remedy: 'Write nbd://host:port/NAME or nbd+unix:///NAME?socket=PATH',
  });
}
