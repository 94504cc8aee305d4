import { expect, test } from 'vitest'
import { recordsOf } from '../helpers/vault.ts'
import { onStage, USUAL, until } from './harness.ts'

test('a checksum that is not that of the book is told, of each book that has checksums', { timeout: 60_000 }, () =>
  onStage({ seed: 15, kind: 'network' }, async stage => {
    const running = stage.start()
    await running.heard()
    for (const [at, { symbols }] of USUAL.entries())
      for (const instrument of symbols) stage.simulators[at]!.inject({ kind: 'corrupt-checksum', instrument })
    const silent = () =>
      USUAL.flatMap(({ exchange, symbols }) =>
        symbols.filter(symbol => {
          const rows = recordsOf(stage.vault, exchange, 'status', symbol)
          return !rows.some(row => row.event === 'checksum_mismatch')
        })
      )
    await until(
      () => silent().length === 0,
      () => stage.about(`no checksum_mismatch of ${silent().join(', ')}`)
    )
    expect(await running.stop()).toBe(0)
    expect(stage.judge().findings).toEqual([])
  })
)
