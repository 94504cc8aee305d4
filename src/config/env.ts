/** The environment: the only place that reads it. An empty variable counts as not set. */

/** What l3cap takes from the environment, besides credentials. */
export interface Environment {
  /** `L3CAP_VAULT` */
  readonly vault: string | undefined
  /** `NO_COLOR`, with any value: terminals get no colours. */
  readonly noColor: boolean
}

/** Reads the environment as it is now. */
export function environment(): Environment {
  return { vault: process.env.L3CAP_VAULT || undefined, noColor: Boolean(process.env.NO_COLOR) }
}

/** The values of these variables, all of them or null. Credentials come from nowhere else and are written nowhere. */
export function variables(names: readonly string[]): string[] | null {
  const values = names.map(name => process.env[name] ?? '')
  return values.includes('') ? null : values
}

/** The vault directory of a command that is not given one: `L3CAP_VAULT`, else `./vault`. */
export function defaultVault(): string {
  return environment().vault ?? './vault'
}
