import assert from 'node:assert/strict';
import { it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import type { NbdAddress } from '../sources/disk.ts';
import { formatNbdUri, isNbdUri, parseNbdUri } from './address.ts';

const tls = { caFile: '/etc/ca.pem' };
const PAIRS: readonly [string, NbdAddress][] = [
  ['nbd+unix:///disk?socket=/run/x.sock', { socket: '/run/x.sock', exportName: 'disk' }],
  ['nbd+unix:///?socket=/run/x.sock', { socket: '/run/x.sock', exportName: '' }],
  ['nbd://backup.example:10809/a/b%20c', { host: 'backup.example', port: 10809, exportName: 'a/b c' }],
  ['nbd://[::1]:77/', { host: '::1', port: 77, exportName: '' }],
  ['nbds://h:10809/%EB%94%94?ca-file=/etc/ca.pem', { host: 'h', port: 10809, exportName: '디', tls }],
  [
    'nbds+unix:///d?socket=/s&ca-file=/etc/ca.pem&cert-file=/c&key-file=/k&tls-hostname=n',
    { socket: '/s', exportName: 'd', tls: { ...tls, certFile: '/c', keyFile: '/k', serverName: 'n' } },
  ],
];

it('NBD URIs say what addresses say, in both directions', () => {
  for (const [uri, address] of PAIRS) {
    assert.deepEqual(parseNbdUri(uri), address, uri);
    assert.deepEqual(parseNbdUri(formatNbdUri(address)), address, uri);
  }
  assert.equal(parseNbdUri('nbd://h').port, 10809);
  assert.equal(parseNbdUri('nbds://h/?tls-certificates=/pki').tls?.caFile, '/pki/ca-cert.pem');
});

it('an NBD address that leaves something out is refused with what to write', () => {
  const bad = [
    'nbd+unix:///x',
    'nbd:///x',
    'http://h/x',
    'x',
    'nbd://h/%ff',
    'nbds://h/x',
    'nbds://h/x?ca-file=a&cert-file=b',
  ];
  for (const uri of [...bad, `nbd://h/${'n'.repeat(4097)}`]) {
    assert.throws(
      () => parseNbdUri(uri),
      (error) => isHoldfastError(error, 'usage') && error.remedy !== undefined,
      uri,
    );
  }
});

it('a path is no NBD URI', () => {
  assert.deepEqual(['nbd://h/', 'nbds+unix:///?socket=/s', '/nbd://h', 'nbd', 'disk.raw'].map(isNbdUri), [
    true,
    true,
    false,
    false,
    false,
  ]);
});
