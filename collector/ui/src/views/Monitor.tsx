/** The wall: what is down now, newest first, beside all that there is. */
import { Failures } from "../parts/Failures";
import { FilterForm } from "../parts/FilterForm";
import { Grid } from "../parts/Grid";
import { Regions } from "../parts/Regions";
import { DeviceTable } from "../parts/DeviceTable";
import { type Show, route, setParam, show } from "../state";
import { t } from "../words";

const SHOWS: Show[] = ["grid", "regions", "table"];

export function Monitor() {
  void route.value;
  const shown = show.value;
  return (
    <div class="monitor">
      <Failures />
      <section class="estate" aria-labelledby="estate-title">
        <div class="section-head">
          <h2 id="estate-title">{t().allBranchesTitle}</h2>
          <div class="shows" role="group" aria-label={t().showsLabel}>
            {SHOWS.map((name) => (
              <button key={name} type="button" class="choice" aria-pressed={shown === name} onClick={() => setParam("show", name === "grid" ? "" : name)}>
                {t().shows[name]}
              </button>
            ))}
          </div>
        </div>
        <FilterForm />
        {shown === "grid" ? <Grid /> : shown === "regions" ? <Regions /> : <DeviceTable />}
      </section>
    </div>
  );
}
