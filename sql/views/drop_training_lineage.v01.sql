DROP VIEW training_lineage;
