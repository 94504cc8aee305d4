import { Command, CommanderError } from 'commander'
import { L3capError, messageOf } from './core/errors.ts'
import { printable } from './core/printable.ts'

/** The commands, each loaded only when it is run or when help lists all of them: a capture need not carry the others. */
const COMMANDS: Record<string, () => Promise<Command>> = {
  run: async () => (await import('./commands/run.ts')).runCommand(),
  status: async () => (await import('./commands/status.ts')).statusCommand(),
  check: async () => (await import('./commands/check.ts')).checkCommand(),
  coverage: async () => (await import('./commands/coverage.ts')).coverageCommand(),
  retention: async () => (await import('./commands/retention.ts')).retentionCommand(),
  book: async () => (await import('./commands/book.ts')).bookCommand(),
  replay: async () => (await import('./commands/replay.ts')).replayCommand(),
  rebuild: async () => (await import('./commands/rebuild.ts')).rebuildCommand(),
  repair: async () => (await import('./commands/repair.ts')).repairCommand(),
  instruments: async () => (await import('./commands/instruments.ts')).instrumentsCommand(),
  simulate: async () => (await import('./commands/simulate.ts')).simulateCommand()
}

/** Runs the command line and sets the exit code: 0 done, 1 trouble, 2 wrong usage, 3 written by another process. */
export async function main(argv: readonly string[]): Promise<void> {
  const program = new Command('l3cap')
    .description('Records order books from exchange WebSockets: raw frames, order events, gap-flagged snapshots.')
    .showHelpAfterError('(see --help)')
  const wanted = argv[2] ?? ''
  const makers = Object.hasOwn(COMMANDS, wanted) ? [COMMANDS[wanted]!] : Object.values(COMMANDS)
  for (const make of makers) program.addCommand(await make())
  for (const each of [program, ...program.commands]) each.exitOverride()
  try {
    await program.parseAsync([...argv])
  } catch (error) {
    process.exitCode = report(error)
  }
  // What is left then (keep-alive sockets of REST, timers of a closing peer) must not delay the end.
  if (process.stdout.writableLength > 0) await new Promise(resolve => process.stdout.once('drain', resolve))
  process.exit()
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (error instanceof L3capError) {
    process.stderr.write(`l3cap: ${printable(error.message)}\n       ${error.advice}\n`)
    return error.exit
  }
  const text = error instanceof Error ? (error.stack ?? messageOf(error)) : messageOf(error)
  process.stderr.write(`l3cap: ${printable(text)}\n`)
  return 1
}
