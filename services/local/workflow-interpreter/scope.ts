import type { Graph, State } from '#workflows/asl.ts';

/** Where in a machine a frame runs: the Map and Parallel states around it, and which branch of each. */
export type Scope = readonly { readonly state: string; readonly branch: number }[];

/** The graph of a scope: the machine itself, a branch of a Parallel, or the processor of a Map. */
export function graphOf(machine: Graph, scope: Scope): Graph {
  let graph = machine;
  for (const { state, branch } of scope) {
    const around = stateOf(graph, state);
    const inner =
      around.Type === 'Map' ? around.ItemProcessor : around.Type === 'Parallel' ? around.Branches[branch] : undefined;
    if (inner === undefined) throw new Error(`${state} has no branch ${branch}`);
    graph = inner;
  }
  return graph;
}

/** A state by its name, which the schema has made sure is there. */
export function stateOf(graph: Graph, name: string): State {
  const state = Object.hasOwn(graph.States, name) ? graph.States[name] : undefined;
  if (state === undefined) throw new Error(`there is no state ${name}`);
  return state;
}
