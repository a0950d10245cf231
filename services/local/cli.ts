/** What the launcher starts: the command line's composition root. */

import { VERBS } from './commands/registry.ts';
import { runProcess } from './process.ts';

await runProcess(VERBS);
