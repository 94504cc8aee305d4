/** The environment: the only place that reads it. An empty variable counts as not set. */

/** What l3cap takes from the environment. Credentials come from nowhere else and are written nowhere. */
export interface Environment {
  /** `L3CAP_VAULT` */
  readonly vault: string | undefined
  readonly coinbaseApiKey: string | undefined
  readonly coinbaseApiSecret: string | undefined
  readonly coinbaseApiPassphrase: string | undefined
  readonly krakenApiKey: string | undefined
  readonly krakenApiSecret: string | undefined
}

/** Reads the environment as it is now. */
export function environment(): Environment {
  const variables = process.env
  return {
    vault: variables.L3CAP_VAULT || undefined,
    coinbaseApiKey: variables.COINBASE_API_KEY || undefined,
    coinbaseApiSecret: variables.COINBASE_API_SECRET || undefined,
    coinbaseApiPassphrase: variables.COINBASE_API_PASSPHRASE || undefined,
    krakenApiKey: variables.KRAKEN_API_KEY || undefined,
    krakenApiSecret: variables.KRAKEN_API_SECRET || undefined
  }
}

/** The vault directory of a command that is not given one: `L3CAP_VAULT`, else `./vault`. */
export function defaultVault(): string {
  return environment().vault ?? './vault'
}
