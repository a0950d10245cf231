import type { Command } from '#contract/command.ts';

/** A verb of the command line. Its file is loaded only when it is used or asked for help. */
export interface Verb {
  readonly load: () => Promise<Command>;
  /** Arguments put in front of the user's: makes a verb a short name for another one's sub-verb. */
  readonly prefix?: readonly string[];
  /** Replaces the command's own summary where `prefix` narrows it. */
  readonly summary?: string;
}

/** Every verb of `holdfast`, in the order in which `--help` lists them. */
export const VERBS: Readonly<Record<string, Verb>> = {
  up: { load: () => import('./up.ts') },
  demo: { load: () => import('./demo.ts') },
  vault: { load: () => import('#edge/commands/vault.ts') },
  recover: {
    load: () => import('#edge/commands/vault.ts'),
    prefix: ['restore'],
    summary: 'Restore a point from a bucket or folder and a key alone (short for: vault restore)',
  },
  'export-key': { load: () => import('./export-key.ts') },
};
