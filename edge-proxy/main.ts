/** The appliance's daemon: `node edge-proxy/main.ts --data DIR --api URL [--activation-token-file F]`. */

import { readFileSync } from 'node:fs';
import { readFile, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { HoldfastError, reportOf } from '#contract/errors.ts';
import { lockFolder } from '#local/folder-lock.ts';
import { systemClock as clock } from '#local/system-clock.ts';
import { systemRandom as random } from '#local/system-random.ts';
import { ControlPlane } from './agent/control-plane.ts';
import { engine } from './agent/engine.ts';
import { enrol } from './agent/enrolment.ts';
import { HttpClient } from './agent/http-client.ts';
import { openIdentity } from './agent/identity.ts';
import { performTask } from './agent/job-work.ts';
import type { Patience } from './agent/patience.ts';
import { runTaskLoop } from './agent/task-loop.ts';

/** A job waits this long for a control plane or store that does not answer. */
const PATIENCE: Patience = { firstWaitMs: 100, maxWaitMs: 5000, totalMs: 15 * 60_000 };
const SLOTS = 2;
const HEARTBEAT_SECONDS = 10;
/** Whatever still hangs after being told to stop is left to die: a job goes on from its journal. */
const STOP_MS = 8000;

const { values } = parseArgs({
  options: {
    data: { type: 'string' },
    api: { type: 'string' },
    name: { type: 'string' },
    'activation-token-file': { type: 'string' },
    /** End when standard input does: whoever started us is gone. */
    'stop-with-stdin': { type: 'boolean', default: false },
  },
});

const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    // A terminal's Ctrl-C reaches us and whoever started us, who will tell us to stop: once is enough.
    if (values['stop-with-stdin'] && name !== 'SIGTERM') return;
    if (stop.signal.aborted) process.exit(1);
    // Retryable: whoever runs next goes on with the jobs, so what they have done so far stays.
    stop.abort(new HoldfastError('cancelled', `Stopped by ${name}`, { retryable: true }));
  });
}
stop.signal.addEventListener('abort', () => {
  const giveUp = () => {
    log('stopped-hard', { after: `${STOP_MS} ms` });
    process.exit(1);
  };
  setTimeout(giveUp, STOP_MS).unref();
});
if (values['stop-with-stdin']) {
  process.stdin.on('close', () =>
    stop.abort(new HoldfastError('cancelled', 'The process that started this one is gone', { retryable: true })),
  );
  process.stdin.resume();
}

try {
  await serve();
  process.exit(0);
} catch (error) {
  if (stop.signal.aborted) process.exit(0);
  log('failed', { ...reportOf(error) });
  process.exit(1);
}

async function serve(): Promise<void> {
  const { data, api } = values;
  if (data === undefined || api === undefined) {
    throw new HoldfastError('usage', 'Both --data and --api are needed', { remedy: 'Give --data DIR --api URL' });
  }
  const { signal } = stop;
  using _lock = lockFolder(data, 'edge proxy');
  const http = new HttpClient();
  try {
    const baseUrl = api.replace(/\/+$/, '');
    const version = programVersion();
    const enrolment = {
      baseUrl,
      http,
      folder: data,
      name: values.name ?? hostname(),
      version,
      platform: `${process.platform} ${process.arch}, Node ${process.version}`,
      patience: PATIENCE,
    };
    const tokenFile = values['activation-token-file'];
    const token = await activationToken(tokenFile);
    const identity = await enrol(enrolment, await openIdentity(data, random), token, { clock, random, signal });
    // Spent now: it must not lie about.
    if (tokenFile !== undefined) await unlink(tokenFile).catch(() => undefined);
    const plane = new ControlPlane({ baseUrl, http, clock, random, identity, patience: PATIENCE });
    log('started', { proxy: identity.proxy, api: baseUrl, version });
    const work = { plane, http, identity, clock, random, engine, cacheDir: join(data, 'cache'), patience: PATIENCE };
    await runTaskLoop(
      {
        plane,
        clock,
        slots: SLOTS,
        version,
        heartbeatSeconds: HEARTBEAT_SECONDS,
        perform: (task, jobSignal, onProgress) => performTask(work, task, jobSignal, onProgress),
        log,
      },
      signal,
    );
    log('stopped');
  } finally {
    http.close();
  }
}

async function activationToken(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  return readFile(path, 'utf8').then(
    (text) => text.trim(),
    (error: NodeJS.ErrnoException) => {
      // An enrolled proxy needs it no more.
      if (error.code === 'ENOENT') return undefined;
      throw error;
    },
  );
}

function programVersion(): string {
  return JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
}

function log(event: string, facts: Readonly<Record<string, unknown>> = {}): void {
  process.stdout.write(`${JSON.stringify({ at: new Date().toISOString(), event, ...facts })}\n`);
}
