import type { BlobGrants, Blobs } from '#ports/blobs.ts';
import type { Clock } from '#ports/clock.ts';
import type { Keys } from '#ports/keys.ts';
import type { Queue } from '#ports/queue.ts';
import type { Random } from '#ports/random.ts';
import type { Table } from '#ports/table.ts';
import type { Workflows } from '#ports/workflows.ts';

/** Everything the application needs of the outside; the composition root chooses the adapters. */
export interface Services {
  readonly table: Table;
  /** Every vault's objects, under `v1/<vault>/`. */
  readonly blobs: Blobs;
  readonly grants: BlobGrants;
  readonly queue: Queue;
  readonly keys: Keys;
  readonly workflows: Workflows;
  readonly clock: Clock;
  readonly random: Random;
  readonly settings: Settings;
  /** Takes what operators must see; never a secret. */
  readonly log: (entry: LogEntry) => void;
}

export interface LogEntry {
  readonly level: 'info' | 'warning' | 'error';
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

export interface Settings {
  /** A task that its proxy has not acknowledged is delivered again after this time. */
  readonly taskVisibilitySeconds: number;
  /** How often proxies report a job's progress. */
  readonly progressSeconds: number;
  /** A writer's lease on its session. */
  readonly sessionLeaseSeconds: number;
  readonly accessTokenSeconds: number;
  readonly grantSeconds: number;
  /** A proxy counts as online this long after its last heartbeat. */
  readonly proxyOnlineSeconds: number;
  /** Jobs at once on one proxy. */
  readonly proxySlots: number;
}

/** What fits a real deployment; the embedded one shortens some. */
export const DEFAULT_SETTINGS: Settings = {
  taskVisibilitySeconds: 30,
  progressSeconds: 5,
  sessionLeaseSeconds: 900,
  accessTokenSeconds: 900,
  grantSeconds: 900,
  proxyOnlineSeconds: 90,
  proxySlots: 2,
};
